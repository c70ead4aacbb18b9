"""``nrh evaluate``, whose data may lie in a storage and whose files may go to one."""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from nrh_dist.engine import fetched
from nrh_dist.engine.progress import Say
from nrh_dist.engine.storage import Storage, StorageProblem, open_storage
from nrh_dist.errors import UserError
from nrh_dist.launch import evaluate as launch
from nrh_dist.launch.evaluate import Options
from nrh_dist.launch.scoring import OWN
from nrh_dist.location import cache_dir, is_remote

LAST = "summary.json"  # without it, there is no evaluation


def evaluate(words: Sequence[str], data: str, out: str, options: Options, say: Say) -> None:
    """As ``launch.evaluate``, with a folder or an address as ``data`` (of a pack) and ``out``.

    For an address the files are made in the cache, sent, and only then deleted there. ``UserError``, too, where the
    storage fails or holds other files at ``out``: what was scored is kept, and the same command sends it.
    """
    source = fetched.pack(data, say) if is_remote(data) else Path(data)
    if not is_remote(out):
        launch.evaluate(words, source, Path(out), options, say)
        return
    place = open_storage(out, "--out")
    _require_replaceable(place)
    folder = cache_dir() / "evaluations" / hashlib.sha256(str(place).encode()).hexdigest()[:16] / place.location.name
    launch.evaluate(words, source, folder, options, say)
    try:
        _send(folder, place)
    except StorageProblem as problem:
        raise UserError(f"the evaluation is complete in {folder}, and could not be sent: {problem}") from None
    shutil.rmtree(folder)
    say(f"sent to {place}")


def _require_replaceable(place: Storage) -> None:
    others = sorted({name.split("/")[0] for name in place.sizes()} - OWN)
    if others:
        raise UserError(f"{place} holds {others[0]}, which is of no evaluation: give another --out")


def _send(folder: Path, place: Storage) -> None:
    """Send all files of an evaluation, the one that makes it one last; then away with those of an earlier one."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    names = [name for name in names if not name.startswith(".") and name != LAST]
    place.remove(LAST)
    for name in names:
        place.put(folder / name, name)
    for name in place.sizes():
        if name not in names:
            place.remove(name)
    place.put(folder / LAST, LAST)
