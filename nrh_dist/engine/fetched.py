"""Checkpoints, runs and packs at an address, brought into the cache once and verified by their manifests.

<cache>/fetched/<hash of the address>/<run>/checkpoints/<name>     or .../<name>, what lies alone
"""

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from nrh_dist.data.coco_exp import MANIFEST as MANIFEST_CSV
from nrh_dist.data.pack import check, open_pack
from nrh_dist.data.rows import CHANNELS
from nrh_dist.engine import checkpoint
from nrh_dist.engine.checkpoint import BEST, EXPORTED, FOLDER, MANIFEST, OWN
from nrh_dist.engine.copied import require_space
from nrh_dist.engine.files import sync_folder
from nrh_dist.engine.lock import one_at_a_time
from nrh_dist.engine.progress import Say
from nrh_dist.engine.storage import Storage, open_storage
from nrh_dist.errors import UserError
from nrh_dist.location import cache_dir, is_safe

PACK = "pack.json"
ORIGIN = ".origin"  # beside what was fetched: its address


class Origin(NamedTuple):
    """A folder of the cache, the address that it came from, and what it states about itself there.

    Both are empty for a folder that is no fetched one.
    """

    path: Path
    address: str = ""
    stated: bytes = b""


def checkpoint_folder(word: str) -> Path:
    """The checkpoint that an address means, as ``select.resolve`` would take it from a disk: verified, in the cache.

    ``UserError`` for a damaged one, and for an address with no checkpoint, run or sweep.
    """
    place = open_storage(word, "the checkpoint")
    stated = place.read(MANIFEST)
    if stated is None:
        place = place.child(_best(place))
        stated = place.read(MANIFEST)
    if stated is None:
        raise UserError(f"{place} holds no {MANIFEST}: it is no checkpoint, or was not sent to its end")
    names = (*(EXPORTED if EXPORTED[-1].encode() in stated else OWN), MANIFEST)

    def is_here(folder: Path) -> bool:
        return checkpoint.fault(folder) is None and (folder / MANIFEST).read_bytes() == stated

    return _brought(place, names, is_here, checkpoint.fault, lambda line: None)


def pack(word: str, say: Say) -> Path:
    """The pack at an address, in the cache: space is checked first, and every byte against its manifest afterwards.

    The ``manifest.csv`` of a COCO-Exp set comes with it; what it tells is in no digest.
    """
    place = open_storage(word, "data.pack")
    stated = place.read(PACK)
    if stated is None:
        raise UserError(f"{place} holds no {PACK}: it is no pack, or was not sent to its end")
    names: list[str] = []
    with suppress(ValueError, TypeError, KeyError):
        names = [*json.loads(stated)["sha256"]]
    if not names or not set(names) <= set(CHANNELS):
        raise UserError(f"{place}/{PACK} is damaged: pack the data again")
    if MANIFEST_CSV in place.sizes():
        names.append(MANIFEST_CSV)

    def is_here(folder: Path) -> bool:
        is_same = (folder / PACK).exists() and (folder / PACK).read_bytes() == stated
        return is_same and all((folder / name).exists() for name in names) and _mistake(open_pack, folder) is None

    return _brought(place, (*names, PACK), is_here, lambda folder: _mistake(check, folder), say)


def origin(path: Path) -> Origin:
    """What another machine needs to have the fetched folder ``path``, too."""
    top = cache_dir() / "fetched"
    if not path.is_relative_to(top):
        return Origin(path)
    return Origin(path, (top / path.relative_to(top).parts[0] / ORIGIN).read_text(), _stated(path))


def here(given: Origin, say: Say) -> Path:
    """``given`` on this machine: where it is, or fetched.

    ``UserError`` for a plain path that this machine lacks, and where the address holds something else by now.
    """
    if given.path.exists() and (not given.address or _stated(given.path) == given.stated):
        return given.path
    if not given.address:
        raise UserError(
            f"the machine {socket.gethostname()} has no {given.path}: give a folder that all machines see, or an "
            "address such as s3://bucket/packs/NAME"
        )
    is_pack = open_storage(given.address).read(PACK) is not None
    path = pack(given.address, say) if is_pack else checkpoint_folder(given.address)
    if _stated(path) != given.stated:
        raise UserError(f"{given.address} was replaced since this began: give the same command again")
    return path


def _stated(path: Path) -> bytes:
    """The manifest of a pack or a checkpoint; empty where there is none."""
    files = (path / name for name in (PACK, MANIFEST))
    return next((file.read_bytes() for file in files if file.is_file()), b"")


def results(word: str, say: Say) -> Path:
    """All runs, sweeps and evaluations below an address, in the cache: the files that ``gather`` looks at."""
    place = open_storage(word, "the folder")
    there = place.sizes()
    wanted = {name: size for name, size in there.items() if _is_of_results(name)}
    if not wanted:
        raise UserError(f"{place} holds no run, sweep or evaluation")
    target = _top(place) / place.location.name
    with _fetching(target):
        same = _same_checkpoints(place, target, wanted)
        lacking = {
            name: size for name, size in wanted.items() if not (_parent(name) in same and (target / name).is_file())
        }
        require_space(target.parent, sum(lacking.values()), place)
        gone = set()
        for name, size in sorted(lacking.items(), key=lambda one: one[0].endswith(f"/{MANIFEST}")):  # those last
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                place.get(name, target / name, size)
            except FileNotFoundError:  # pruned there meanwhile
                gone.add(_parent(name))
        for path in [*target.rglob("*")]:  # gone there, as a pruned checkpoint is
            name = str(path.relative_to(target))
            if path.is_file() and (name not in wanted or _parent(name) in gone):
                path.unlink()
    say(f"{place}: {len(lacking)} of {len(wanted)} files were fetched into {target}")
    return target


def _mistake(act: Callable[[Path], object], folder: Path) -> str | None:
    try:
        act(folder)
    except UserError as error:
        return str(error)
    return None


def _is_of_results(name: str) -> bool:
    parts = name.split("/")
    is_of_checkpoint = len(parts) > 2 and parts[-3] == FOLDER and parts[-1] in (*OWN, MANIFEST)
    return is_of_checkpoint or parts[-1] in ("metrics.jsonl", "summary.json", "per_image.csv", "config.yaml", BEST)


def _same_checkpoints(place: Storage, target: Path, names: Iterable[str]) -> set[str]:
    """The folders of checkpoints that were fetched before, by their manifests; other files change without one."""
    manifests = (name for name in names if name.endswith(f"/{MANIFEST}") and (target / name).is_file())
    return {_parent(name) for name in manifests if (target / name).read_bytes() == place.read(name)}


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


def _best(place: Storage) -> str:
    """The checkpoint of a run or sweep that its best.json names."""
    content = place.read(BEST)
    if content is None:
        raise UserError(f"{place} holds no checkpoint and no {BEST}: give a run, a sweep or a checkpoint folder")
    with suppress(ValueError, TypeError, KeyError):
        name = str(json.loads(content)["checkpoint"])
        if is_safe(name):
            return name
    raise UserError(f"{place}/{BEST} is damaged: name a checkpoint folder instead")


def _brought(
    place: Storage,
    names: tuple[str, ...],
    is_here: Callable[[Path], bool],
    fault: Callable[[Path], str | None],
    say: Say,
) -> Path:
    """The folder of the cache with the files ``names`` of ``place``: as it is, or fetched and free of any ``fault``."""
    parts = place.location.path.split("/")
    target = _top(place).joinpath(*(parts[-3:] if parts[-2:-1] == [FOLDER] else parts[-1:]))
    with _fetching(target):
        if is_here(target):
            return target
        sizes = _sizes(place, names)
        partial = target.with_name(f".{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            require_space(partial, sum(sizes.values()), place)
            say(f"fetching {place} ({sum(sizes.values()) / 1e6:.3g} MB), once, into {target}")
            for name, size in sizes.items():
                place.get(name, partial / name, size)
            if reason := fault(partial):
                raise UserError(f"{place} is damaged: {reason}")
            shutil.rmtree(target, ignore_errors=True)
            os.rename(partial, target)
            sync_folder(target.parent)
        except FileNotFoundError as error:
            raise UserError(f"{place} was not sent to its end, or is being replaced: {error}") from None
        except OSError as error:
            raise UserError(f"cannot write {target}: {error.strerror or error}") from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return target


def _sizes(place: Storage, names: tuple[str, ...]) -> Mapping[str, int]:
    there = place.sizes()
    if lacking := [name for name in names if name not in there]:
        raise UserError(f"{place} lacks {', '.join(lacking)}: it was not sent to its end")
    return {name: there[name] for name in names}


def _top(place: Storage) -> Path:
    """The folder of the cache for one address, which it notes."""
    top = cache_dir() / "fetched" / hashlib.sha256(str(place).encode()).hexdigest()[:16]
    top.mkdir(parents=True, exist_ok=True)
    (top / ORIGIN).write_text(str(place))
    return top


@contextmanager
def _fetching(target: Path) -> Iterator[None]:
    """Let one process of this machine fetch at a time: the others find what it brought."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(target.with_name(f".{target.name}.lock")):
        yield
