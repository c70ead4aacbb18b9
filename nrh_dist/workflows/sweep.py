"""``nrh tune``: the sweep, and then its figures and page."""

from collections.abc import Sequence
from pathlib import Path

from nrh_dist.engine.progress import Say
from nrh_dist.launch.tune import tune


def sweep(path: Path, words: Sequence[str], resume: bool, say: Say) -> Path:
    """Run the sweep of a space file, and draw it; returns its folder. ``UserError`` as ``tune``."""
    return tune(path, words, resume, say)
