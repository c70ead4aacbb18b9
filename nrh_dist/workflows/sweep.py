"""``nrh tune``: the sweep, and then its figures, its page and its Optuna study."""

from collections.abc import Sequence
from pathlib import Path

from nrh_dist.engine.progress import Say
from nrh_dist.launch import space
from nrh_dist.launch.sweep_copy import copy_of
from nrh_dist.launch.tune import tune
from nrh_dist.report import sweep as report


def sweep(path: Path, words: Sequence[str], resume: bool, say: Say) -> Path:
    """Run the sweep of a space file to its end and draw it; returns its folder. ``UserError`` as ``tune``."""
    folder = tune(path, words, resume, say)
    report.write(folder, say)
    searched = space.read(path, words)
    copy_of(searched.config(searched.first).storage, folder).send()
    return folder
