"""The copy of a run's folder in the storage: where it is, what it holds, and how it is brought back.

The copy holds the same files by the same names: the kept checkpoints, and those that lie in the folder itself. Of a
checkpoint the manifest is written last and removed first, so that a half one does not exist; a row of metrics.jsonl is
there before the manifest of its epoch, as on the disk.
"""

import shutil
from pathlib import Path

from nrh_dist import config as configuration
from nrh_dist.engine import checkpoint
from nrh_dist.engine.checkpoint import FOLDER, MANIFEST, OWN, position
from nrh_dist.engine.files import sync_folder
from nrh_dist.engine.lock import one_at_a_time
from nrh_dist.engine.progress import Say
from nrh_dist.engine.storage import Storage, open_storage
from nrh_dist.errors import UserError
from nrh_dist.schema import Config

ALL = (*OWN, MANIFEST)
ROWS = "metrics.jsonl"
FETCHING = ".fetching"  # held by who fetches: the others find what it brought
REPLACED = (ROWS, checkpoint.BEST)  # by those of the copy, where that has the newer checkpoint


def copy_of(config: Config) -> Storage | None:
    """The place of this run's copy, ``storage/run.name``; None without ``storage``."""
    return open_storage(config.storage).child(configuration.run_name(config)) if config.storage else None


def reached(copy: Storage | None, folder: Path) -> str:
    """The name of the newest checkpoint that is in ``folder`` or, whole by its list of files, in the copy; or ""."""
    here = checkpoint.newest(folder).path
    names = [here.name] if here else []
    if copy:
        names += whole(copy.sizes())
    return max(names, key=position, default="")


def bring(copy: Storage, folder: Path, say: Say) -> None:
    """Fetch what the copy has and ``folder`` lacks: the small files, the newest sound checkpoint and the best one.

    Where the copy has the newer checkpoint, its rows and its best.json replace those of ``folder``. Half and damaged
    checkpoints are skipped; the damaged ones are named.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(folder / FETCHING):
        there, here = copy.sizes(), checkpoint.newest(folder).path
        newer = [name for name in whole(there) if here is None or position(name) > position(here.name)]
        # Rows come before the checkpoint: who is interrupted between the two finds it newer again, and rows beyond a
        # checkpoint are dropped.
        for name, size in there.items():
            if "/" not in name and (not (folder / name).exists() or (newer and name in REPLACED)):
                copy.get(name, folder / name, size)
        for name in reversed(newer):
            if _fetch(copy, folder, name, there, say):  # the newest sound one
                break
        for name in _bests(folder) & {*whole(there)}:
            _fetch(copy, folder, name, there, say)


def is_behind(copy: Storage, folder: Path) -> bool:
    """Whether ``folder`` has a newest checkpoint, or rows, that the copy lacks."""
    there, here, rows = copy.sizes(), checkpoint.newest(folder).path, folder / ROWS
    lacks_checkpoint = here is not None and here.name not in whole(there)
    return lacks_checkpoint or (rows.exists() and there.get(ROWS) != rows.stat().st_size)


def fetch(copy: Storage, folder: Path, name: str, say: Say) -> bool:
    """Make the checkpoint ``name`` of the copy one of ``folder``; False, and a line, where it is not sound."""
    with one_at_a_time(folder / FETCHING):
        return _fetch(copy, folder, name, copy.sizes(), say)


def whole(there: dict[str, int]) -> list[str]:
    """The checkpoints in a list of files with all their files, oldest first; other names do not count."""
    found = [one for one in names(there) if position(one) and all(f"{FOLDER}/{one}/{file}" in there for file in ALL)]
    return sorted(found, key=position)


def names(there: dict[str, int]) -> set[str]:
    """The checkpoints of which a list of files holds any."""
    return {parts[1] for name in there if (parts := name.split("/"))[0] == FOLDER and len(parts) == 3}


def require_space(folder: Path, size: int, source: object) -> None:
    """``UserError`` where ``size`` bytes do not fit on the disk of ``folder``."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UserError(f"{source} takes {size / 1e9:.3g} GB, and the disk of {folder} has {free / 1e9:.3g} GB free")


def _fetch(copy: Storage, folder: Path, name: str, there: dict[str, int], say: Say) -> bool:
    """``fetch``, where the sizes of the copy's files are known."""
    final, partial = folder / FOLDER / name, folder / FOLDER / f".{name}.fetched"
    if checkpoint.fault(final) is None:
        return True
    sizes = {file: there.get(f"{FOLDER}/{name}/{file}", 0) for file in (*OWN, MANIFEST)}
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        require_space(partial, sum(sizes.values()), copy)
        for file, size in sizes.items():
            copy.get(f"{FOLDER}/{name}/{file}", partial / file, size)
        if reason := checkpoint.fault(partial):
            say(f"skipped the checkpoint {name} in {copy}: {reason}")
            return False
        shutil.rmtree(final, ignore_errors=True)  # damaged here
        partial.rename(final)
        sync_folder(final.parent)
    except FileNotFoundError:
        say(f"skipped the checkpoint {name} in {copy}: it was being removed")
        return False
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    say(f"fetched the checkpoint {name} from {copy}")
    return True


def _bests(folder: Path) -> set[str]:
    """The names of the best checkpoint, by best.json and by the newest checkpoint: the former may be one epoch old."""
    last = checkpoint.newest(folder).path
    named = checkpoint.read_state(last)["state"]["best_name"] if last else ""
    return {checkpoint.named_best(folder), named} - {""}
