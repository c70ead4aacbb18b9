"""The work of packing: rows written chunk by chunk into the files of a folder that one process holds at a time.

Progress is one fingerprint a chunk in ``sources.txt``, appended when the chunk's rows are on the disk. The next attempt
skips the chunks whose fingerprint is there, which it is not when a file has changed since.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nrh_dist.data.images import check_same_size, read_rgb, read_size, resize_mask, resize_photo
from nrh_dist.data.processes import ordered_map
from nrh_dist.data.samples import Sample, Segmentation, by_photo, check_mask_size, mask_of
from nrh_dist.errors import UserError

RESIZE = (
    "stretched to size x size; photos PIL BICUBIC (antialiased), masks PIL BOX; "
    "JPEGs above 4 megapixels decoded at a DCT scale that keeps at least twice the size"
)
COMPOSITES, REALS, MASKS = "composites.u8", "reals.u8", "masks.u8"
CHANNELS = {COMPOSITES: 3, REALS: 3, MASKS: 1}
AREAS = "area_fractions.f64"  # one float64 a row: share of the full-size mask that is >= 128
SOURCES = "sources.txt"
CHUNK = 64  # composites

Say = Callable[[str], None]


def image_files(samples: list[Sample]) -> list[str]:
    """The files of a pack of these samples: photos without any composite need no ``composites.u8``."""
    has_composites = any(sample.composite != sample.real for sample in samples)
    return [name for name in CHANNELS if has_composites or name != COMPOSITES]


def row_bytes(size: int, files: Iterable[str]) -> dict[str, int]:
    """How many bytes one sample takes in each of the image ``files``, and in that of the area fractions."""
    return {name: size * size * CHANNELS[name] for name in files} | {AREAS: np.dtype(np.float64).itemsize}


def chunks_of(samples: list[Sample]) -> list[list[int]]:
    """The rows in chunks that share no file."""
    return by_photo(samples, CHUNK)


def fingerprints(samples: list[Sample], size: int) -> list[str]:
    """One line a chunk: equal lines mean equal bytes at equal rows. The place of the data root is not in it."""

    def facts(row: int) -> list[Any]:
        sample = samples[row]
        files = [_fingerprint(file) for file in (sample.composite, sample.mask, sample.real)]
        return [row, sample.dataset, sample.split, sample.name, sample.group, files]

    def line(chunk: list[int]) -> str:
        text = json.dumps([RESIZE, size, [facts(row) for row in chunk]])
        return hashlib.sha256(text.encode()).hexdigest()

    return [line(chunk) for chunk in chunks_of(samples)]


def _fingerprint(file: Path | Segmentation) -> tuple[Any, ...]:
    if isinstance(file, Segmentation):
        return file.height, file.width, hashlib.sha256(file.text).hexdigest()
    try:
        facts = file.stat()
    except FileNotFoundError:
        raise UserError(f"{file}: is missing") from None
    return file.name, facts.st_size, facts.st_mtime_ns


@contextmanager
def locked(folder: Path, say: Say) -> Iterator[None]:
    """Hold ``folder`` alone: its lock file goes with the process, however it ends.

    While one waits, the holder may rename the folder away; then its lock is no longer the one at the path, and the
    waiter starts again.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file = open(folder / "lock", "w")  # noqa: SIM115
        except FileNotFoundError:  # renamed between the two lines
            continue
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"another process is packing in {folder}: waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            if (folder / "lock").exists() and os.path.samestat((folder / "lock").stat(), os.fstat(file.fileno())):
                yield
                return


def fill(samples: list[Sample], folder: Path, size: int, workers: int | None, say: Say) -> None:
    """Write the rows of all chunks that are not there yet, and then ``sources.txt`` in the order of the chunks.

    A bad image raises ``ImageProblem`` at its place in the order; the chunks before it are kept.
    """
    chunks = dict(zip(fingerprints(samples, size), chunks_of(samples), strict=True))
    files = image_files(samples)
    missing = _missing(chunks, folder, size, len(samples), files)
    total = len(samples)
    count = total - sum(len(rows) for rows in missing.values())
    if count:
        say(f"continuing: {count} of {total} samples are packed already")
    tasks = [[(row, samples[row]) for row in rows] for rows in missing.values()]
    written = ordered_map(partial(_pack_chunk, folder, size, files), tasks, workers)
    with open(folder / SOURCES, "a") as progress:
        for (fingerprint, rows), _ in zip(missing.items(), written, strict=True):
            progress.write(f"{fingerprint}\n")
            progress.flush()
            before, count = count, count + len(rows)
            if 20 * before // total < 20 * count // total:  # every 5 %
                say(f"packed {count} of {total} samples")
    _write_lines(folder / SOURCES, chunks)


def _missing(
    chunks: dict[str, list[int]], folder: Path, size: int, total: int, files: list[str]
) -> dict[str, list[int]]:
    """The chunks that are still to do; all files have their final length afterwards."""
    lengths = {folder / name: total * one for name, one in row_bytes(size, files).items()}
    intact = all(path.exists() and path.stat().st_size == length for path, length in lengths.items())
    done = set(read_lines(folder / SOURCES)) if intact else set()
    # Progress on other data must be forgotten before its rows are overwritten.
    _write_lines(folder / SOURCES, [fingerprint for fingerprint in chunks if fingerprint in done])
    for path, length in lengths.items():
        with open(path, "ab") as file:
            file.truncate(length)
    return {fingerprint: rows for fingerprint, rows in chunks.items() if fingerprint not in done}


def _pack_chunk(folder: Path, size: int, names: list[str], chunk: list[tuple[int, Sample]]) -> None:
    """Write the rows of one chunk into the files of ``folder``, and see them onto the disk."""
    length = row_bytes(size, names)
    with ExitStack() as stack:
        files = {name: stack.enter_context(open(folder / name, "r+b")) for name in length}
        for row, values in _rows(chunk, size):
            for name, file in files.items():
                file.seek(row * length[name])
                file.write(values[name].tobytes())
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())


def _rows(chunk: list[tuple[int, Sample]], size: int) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Each row with its value in every file; each real photo and each mask is decoded once."""
    real_path: Path | None = None
    for row, sample in chunk:
        if sample.real != real_path:  # the samples of one photo come together
            real_path, real_size = sample.real, read_size(sample.real)
            real = resize_photo(read_rgb(sample.real, 2 * size), size)
            masks: dict[Path | Segmentation, tuple[np.ndarray, np.ndarray]] = {}
        if sample.mask not in masks:
            full = mask_of(sample)
            check_mask_size(sample, (full.shape[1], full.shape[0]), real_size)
            masks[sample.mask] = resize_mask(full, size), np.array((full >= 128).mean())
        mask, area = masks[sample.mask]
        composite = real
        if sample.composite != sample.real:
            check_same_size(sample.composite, read_size(sample.composite), sample.real, real_size)
            composite = resize_photo(read_rgb(sample.composite, 2 * size), size)
        yield row, {COMPOSITES: composite, REALS: real, MASKS: mask, AREAS: area}


def replace_text(path: Path, text: str) -> None:
    """Write a whole file under a temporary name, onto the disk, and rename it."""
    temporary = path.with_name(f"{path.name}.tmp")
    with open(temporary, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file; none where there is no file."""
    return path.read_text().splitlines() if path.exists() else []


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    replace_text(path, "".join(f"{line}\n" for line in lines))
