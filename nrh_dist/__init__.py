"""No-reference image harmonisation: train, search, judge and use models without a mask."""

__version__ = "0.1.0"
