"""``nrh tune``: the sweep, and then its figures, its page and its Optuna study."""

from collections.abc import Sequence
from pathlib import Path

from nrh_dist.engine.notice import Stopped
from nrh_dist.engine.progress import Say
from nrh_dist.errors import UserError
from nrh_dist.launch import space
from nrh_dist.launch.sweep_copy import copy_of
from nrh_dist.launch.trial import sweep_dir
from nrh_dist.launch.tune import tune
from nrh_dist.report import sweep as report

SPACES = Path(__file__).parents[2] / "search_spaces"


def given(name: str) -> Path:
    """A space file of this project. ``UserError`` where the package was installed without them."""
    path = SPACES / name
    if not path.is_file():
        raise UserError(f"{path} is missing, as after pip install without -e: work in a clone, by make setup")
    return path


def sweep(path: Path, words: Sequence[str], resume: bool, say: Say) -> Path:
    """Run the sweep of a space file to its end and draw it; returns its folder. ``UserError`` as ``tune``.

    One that is stopped is drawn as far as it got.
    """
    try:
        folder = tune(path, words, resume, say)
    except Stopped:
        try:
            _draw(path, words, say)
        except UserError as problem:  # what to do now is told by the other one
            say(f"no page: {problem}")
        raise
    _draw(path, words, say)
    return folder


def _draw(path: Path, words: Sequence[str], say: Say) -> None:
    searched = space.read(path, words)
    folder = sweep_dir(searched)
    report.write(folder, say)
    copy_of(searched.config(searched.first).storage, folder).send()
