"""The pack: every sample resized once, as raw uint8 files that are mapped into memory, with one manifest.

    <pack>/composites.u8, reals.u8   N x S x S x 3          masks.u8   N x S x S          (row i = sample i)
                                     photos without composites: no composites.u8, the reals stand in its place
    <pack>/pack.json                 names, sub-sets, splits, groups, area fractions, sha256 of the files, digest
    <pack>/sources.txt               what was packed: a fingerprint of each chunk of files (names, sizes and times)

A pack under its final name is complete. While it is made it lives in ``<pack>.partial``, see ``packing``.
"""

import hashlib
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nrh_dist.data.images import ImageProblem
from nrh_dist.data.layouts import Source, index, scan
from nrh_dist.data.packing import (
    SOURCES,
    LeftOut,
    Say,
    count_files,
    fill,
    fingerprints,
    image_files,
    kept_rows,
    locked,
    read_fingerprints,
    replace_text,
    row_bytes,
)
from nrh_dist.data.rows import AREAS, COMPOSITES, MASKS, REALS, RESIZE
from nrh_dist.data.samples import Sample
from nrh_dist.errors import UserError
from nrh_dist.location import cache_dir

SCHEMA = 1


@dataclass(frozen=True, eq=False)
class Pack:
    """An open pack of N samples. The images are memory maps, read-only; take rows from them with ``np.take``."""

    root: Path
    size: int
    names: list[str]
    datasets: list[str]
    splits: list[str]
    groups: list[str]
    area_fractions: np.ndarray  # float64 N, share of the full-size mask that is >= 128
    composites: np.memmap  # uint8 N x S x S x 3
    reals: np.memmap  # uint8 N x S x S x 3
    masks: np.memmap  # uint8 N x S x S
    digest: str  # sha256 of the manifest, which holds those of the files
    skipped: list[tuple[str, str]]  # sub-set/name and reason of samples that cannot be packed, and may be missing

    def __len__(self) -> int:
        return len(self.names)

    @property
    def has_composites(self) -> bool:
        """Whether there is anything to harmonise; without, ``composites`` are the real photos."""
        return self.composites is not self.reals

    def rows(self, split: str) -> np.ndarray:
        """The rows of one split (train or test), ascending, int64."""
        return np.flatnonzero(np.array(self.splits) == split)


def open_pack(path: str | Path) -> Pack:
    """Open a finished pack. Raises ``UserError`` where the manifest is missing, altered or of another schema, or a file
    has not the size that the manifest says. The content of the files is compared by ``check`` only.
    """
    path = Path(path)
    manifest = _read_manifest(path)
    count, size = manifest["count"], manifest["size"]
    for name in manifest["sha256"]:
        expected = count * row_bytes(size, [name])[name]
        actual = (path / name).stat().st_size if (path / name).exists() else 0
        if actual != expected:
            raise UserError(f"{path / name} has {actual} bytes instead of {expected}; delete {path} and pack again")

    def mapped(name: str, *shape: int) -> np.memmap:
        return np.memmap(path / name, np.uint8, mode="r", shape=shape)

    reals = mapped(REALS, count, size, size, 3)
    has_composites = COMPOSITES in manifest["sha256"]
    return Pack(
        root=path,
        size=size,
        names=manifest["names"],
        datasets=manifest["datasets"],
        splits=manifest["splits"],
        groups=manifest["groups"],
        area_fractions=np.array(manifest["area_fractions"]),
        composites=mapped(COMPOSITES, count, size, size, 3) if has_composites else reals,
        reals=reals,
        masks=mapped(MASKS, count, size, size),
        digest=manifest["digest"],
        skipped=[(name, reason) for name, reason in manifest.get("skipped", [])],
    )


def check(path: str | Path) -> None:
    """Read the whole pack and raise ``UserError`` where a file is not the one whose sha256 the manifest holds."""
    pack = open_pack(path)
    stated = _read_manifest(pack.root)["sha256"]
    actual = _sha256_of_files(pack.root, list(stated))
    for name, expected in stated.items():
        if actual[name] != expected:
            raise UserError(
                f"{pack.root / name} is damaged: its sha256 is not the manifest's; delete {path} and pack again"
            )


def write_pack(
    samples: list[Sample], out: str | Path, size: int, workers: int | None, say: Say, max_bad_files: int = 0
) -> Pack:
    """Pack ``samples`` at ``size`` into the new folder ``out``; the same bytes for any number of ``workers``.

    Samples of up to ``max_bad_files`` files that cannot be used are left out, named by ``say`` and in the manifest; the
    last samples stand in their rows then. Packs that lack more are refused, also finished ones.

    ``workers`` None means one process per core. A killed attempt continues where it was; a second process with the
    same ``out`` waits for the first. A pack of exactly these files that is already there is returned as it is. Raises
    ``UserError``: ``out`` holds something else, too little disk space (checked first), a bad image (its path; all
    work up to it is kept), a killed process. Nothing is ever half-written under the name ``out``.
    """
    return _build(samples, Path(f"{out}.partial"), Path(out), size, workers, say, max_bad_files)


def listed(source: Source, max_bad_files: int) -> list[Sample]:
    """What is to be packed: ``index``, but where bad files are allowed, missing ones are such and wait for packing."""
    if max_bad_files == 0:
        return index(source)
    samples, problems = scan(source)
    files = {file for sample in samples for file in (sample.composite, sample.mask, sample.real)}
    return samples if all(problem.path in files for problem in problems) else index(source)


def open_source(source: Source) -> Pack:
    """The data folder as the pack that it is. ``UserError`` like ``open_pack``, and for annotations beside a pack."""
    if source.annotations:
        raise UserError(f"{source.root} is a pack, which needs no annotations: leave {source.annotations} out")
    return open_pack(source.root)


def distinct_objects(pack: Pack, rows: np.ndarray) -> np.ndarray:
    """Those of ``rows`` that show an object of a real photo for the first time, for what looks at no composite.

    Composites <real>_<mask>_1, _2, ... share both. Empty masks are left out.
    """
    rows = rows[pack.area_fractions[rows] > 0]
    names = [pack.names[row].rpartition("_")[0] if pack.has_composites else pack.names[row] for row in rows]
    keys = [(pack.datasets[row], name) for row, name in zip(rows, names, strict=True)]
    _, first = np.unique(np.array(keys).reshape(-1, 2), axis=0, return_index=True)
    return rows[np.sort(first)]


def cached_pack(source: Source, size: int, say: Say, workers: int | None = None, max_bad_files: int = 0) -> Pack:
    """The pack of a data folder: the folder itself where it is one, else packed once into ``cache_dir()``.

    The folder's name holds the size and a fingerprint of the index (names, sizes and times of all files), so that
    changed data is packed anew. Raises ``UserError`` like ``index`` and ``write_pack``, and for a pack of another size.
    """
    root = source.root
    if (root / "pack.json").exists():
        pack = open_source(source)
        if pack.size != size:
            raise UserError(
                f"{root} is packed at size {pack.size}, not {size}: set data.size={pack.size} or pack it again"
            )
        return pack
    samples = listed(source, max_bad_files)
    name = f"{root.resolve().name}-{size}"
    out = cache_dir() / f"{name}-{_short_hash(*fingerprints(samples, size))}"
    if out.exists():
        return _require_few_skipped(open_pack(out), max_bad_files)
    say(f"packing {len(samples)} samples of {root} at {size} pixels, once, into {out}")
    # Named by the place, not the content: mending one bad image must not lose the work on the others.
    place = _short_hash(*(str(path.resolve()) for path in source if path))
    return _build(samples, cache_dir() / f"{name}-{place}.partial", out, size, workers, say, max_bad_files)


def _require_few_skipped(pack: Pack, max_bad_files: int) -> Pack:
    if (count := count_files(pack.skipped)) > max_bad_files:
        name, reason = pack.skipped[0]
        raise UserError(
            f"{pack.root} was packed without {len(pack.skipped)} samples, for {count} bad files, and {max_bad_files} "
            f"are allowed; the first is {name}, for {reason}: mend them (nrh data verify lists all) or allow more "
            "(data.max_bad_files, nrh data pack --skip-bad)"
        )
    return pack


def _build(
    samples: list[Sample], partial: Path, out: Path, size: int, workers: int | None, say: Say, max_bad_files: int
) -> Pack:
    if not samples:
        raise UserError(f"nothing to pack into {out}: no samples were given")
    if _is_occupied(out):
        return _existing(out, samples, size, max_bad_files)
    try:
        with suppress(FileNotFoundError):  # changed by another process, which has the space
            _require_space(partial, samples, size)
        with locked(partial, say):
            if _is_occupied(out):  # made by the process whose lock was waited for
                shutil.rmtree(partial, ignore_errors=True)  # the next one to wait may be making it again
                return _existing(out, samples, size, max_bad_files)
            left_out = fill(samples, partial, size, workers, say, max_bad_files)
            _write_manifest(samples, partial, size, left_out)
            os.rename(partial, out)
        for name in (AREAS, "lock"):
            (out / name).unlink()
    except ImageProblem as problem:
        raise UserError(
            f"{problem}; nrh data verify lists all such files; mend them and run again, "
            "or leave them out (data.max_bad_files, nrh data pack --skip-bad)"
        ) from None
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}; mend that and run again to continue") from None
    return open_pack(out)


def _is_occupied(out: Path) -> bool:
    return out.exists() and not (out.is_dir() and not any(out.iterdir()))


def _existing(out: Path, samples: list[Sample], size: int, max_bad_files: int) -> Pack:
    if not (out / "pack.json").exists():
        raise UserError(f"{out} exists and is not a pack; choose a new folder")
    pack = open_pack(out)
    if read_fingerprints(out / SOURCES) != fingerprints(samples, size):
        raise UserError(
            f"{out} already holds another pack ({len(pack)} samples at size {pack.size}); "
            "choose a new folder or delete this one"
        )
    return _require_few_skipped(pack, max_bad_files)


def _require_space(partial: Path, samples: list[Sample], size: int) -> None:
    there = next(folder for folder in (partial, *partial.parents) if folder.exists())
    written = sum(file.stat().st_blocks * 512 for file in partial.iterdir()) if there == partial else 0
    needed = len(samples) * sum(row_bytes(size, image_files(samples)).values()) - written
    free = shutil.disk_usage(there).free
    if needed > free:
        raise UserError(
            f"packing {len(samples)} samples at size {size} needs {needed / 1e9:.3g} GB, but {there} has "
            f"{free / 1e9:.3g} GB free: make room, or pack elsewhere (NRH_CACHE in the environment moves the cache)"
        )


def _write_manifest(samples: list[Sample], folder: Path, size: int, left_out: list[LeftOut]) -> None:
    files = image_files(samples)
    samples = [samples[row] for row in kept_rows(len(samples), left_out)]
    if not samples:
        raise UserError(f"none of the {len(left_out)} samples can be packed: nrh data verify lists what is wrong")
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "size": size,
        "count": len(samples),
        "resize": RESIZE,
        "names": [sample.name for sample in samples],
        "datasets": [sample.dataset for sample in samples],
        "splits": [sample.split for sample in samples],
        "groups": [sample.group for sample in samples],
        "area_fractions": np.fromfile(folder / AREAS, np.float64).tolist(),
        "sha256": _sha256_of_files(folder, files),
    }
    if left_out:
        manifest["skipped"] = [one[1:] for one in left_out]
    replace_text(folder / "pack.json", json.dumps(manifest | {"digest": _digest(manifest)}))


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((path / "pack.json").read_text())
    except FileNotFoundError:
        raise UserError(f"{path} is not a finished pack: it has no pack.json; run nrh data pack (again)") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path / 'pack.json'} cannot be read: {error}; delete {path} and pack again") from None
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema != SCHEMA:
        raise UserError(f"{path / 'pack.json'} has schema {schema}, this version reads {SCHEMA}; pack the data again")
    if manifest.get("digest") != _digest(manifest):
        raise UserError(f"{path / 'pack.json'} was altered: its digest does not fit; delete {path} and pack again")
    return manifest


def _digest(manifest: dict[str, Any]) -> str:
    facts = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _sha256_of_files(folder: Path, names: list[str]) -> dict[str, str]:
    def sha256(name: str) -> str:
        with open(folder / name, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    with ThreadPoolExecutor(len(names)) as pool:
        return dict(zip(names, pool.map(sha256, names), strict=True))


def _short_hash(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
