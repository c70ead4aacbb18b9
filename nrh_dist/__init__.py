"""No-reference image harmonisation: train, search, judge and use models without a mask."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nrh_dist.engine.predict import load as load

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``nrh_dist.load(CHECKPOINT)``: a harmoniser for photos in memory; imported when it is asked for."""
    if name == "load":
        from nrh_dist.engine.predict import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
