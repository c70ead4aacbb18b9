"""The work of packing: rows written chunk by chunk into the files of a folder that one process holds at a time.

Progress is one fingerprint a chunk in ``sources.txt``, appended when the chunk's rows are on the disk, and beside it
what was left out of the chunk. The next attempt passes over the chunks whose fingerprint is there, which it is not when
a file has changed since. When all rows are there, the last ones are moved into the places of those left out.
"""

import fcntl
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from nrh_dist.data.images import ImageProblem
from nrh_dist.data.processes import ordered_map
from nrh_dist.data.rows import AREAS, CHANNELS, COMPOSITES, RESIZE, rows_of
from nrh_dist.data.samples import Sample, Segmentation, by_photo
from nrh_dist.errors import UserError

SOURCES = "sources.txt"
CHUNK = 64  # composites

Say = Callable[[str], None]


class LeftOut(NamedTuple):
    """A sample (its row in the index, sub-set and name) that cannot be packed, and the file and reason why."""

    row: int
    name: str
    reason: str


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
        return (file.name,)
    return file.name, facts.st_size, facts.st_mtime_ns


@contextmanager
def locked(folder: Path, say: Say) -> Iterator[None]:
    """Hold ``folder`` alone: its lock file goes with the process, however it ends.

    While one waits, the holder may rename the folder away; then its lock is no longer the one at the path, and the
    waiter starts again.
    """
    for attempt in itertools.count():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = open(folder / "lock", "w")  # noqa: SIM115
        except (FileNotFoundError, FileExistsError):  # renamed at this moment, unless it comes again and again
            if attempt == 100:
                raise
            continue
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"another process is packing in {folder}: waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            if _is_at(file, folder / "lock"):
                yield
                return


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def fill(
    samples: list[Sample], folder: Path, size: int, workers: int | None, say: Say, max_bad_files: int
) -> list[LeftOut]:
    """Write the rows of all chunks that are not there yet, and then ``sources.txt`` in the order of the chunks.

    With ``max_bad_files`` 0 a bad image raises ``ImageProblem`` at its place in the order. Else its samples are named,
    left out (``kept_rows`` says how) and returned, and more bad images than that are a ``UserError``. The chunks before
    are kept in each case.
    """
    chunks = dict(zip(fingerprints(samples, size), chunks_of(samples), strict=True))
    lengths = {folder / name: one for name, one in row_bytes(size, image_files(samples)).items()}
    done = _done(chunks, lengths, len(samples), folder / SOURCES, max_bad_files > 0)
    missing = {fingerprint: rows for fingerprint, rows in chunks.items() if fingerprint not in done}
    left_out = [one for known in done.values() for one in known]
    total = len(samples)
    count = total - sum(len(rows) for rows in missing.values())
    if count:
        say(f"continuing: {count} of {total} samples are packed already")
    _require_few(left_out, max_bad_files)
    tasks = [[(row, samples[row]) for row in rows] for rows in missing.values()]
    pack_chunk = partial(_pack_chunk, folder, size, image_files(samples), max_bad_files > 0)
    with open(folder / SOURCES, "a") as progress, closing(ordered_map(pack_chunk, tasks, workers)) as written:
        for (fingerprint, rows), found in zip(missing.items(), written, strict=True):
            progress.write(_line(fingerprint, found))
            progress.flush()
            done[fingerprint] = found
            left_out += found
            for one in found:
                say(f"left out: {one.name}, for {one.reason}")
            _require_few(left_out, max_bad_files)
            before, count = count, count + len(rows)
            if 20 * before // total < 20 * count // total:  # every 5 %
                say(f"packed {count} of {total} samples")
    replace_text(folder / SOURCES, "".join(_line(fingerprint, done[fingerprint]) for fingerprint in chunks))
    if left_out:
        files = count_files(one[1:] for one in left_out)
        say(f"left out {len(left_out)} of {total} samples, for {files} files that cannot be used")
        _fill_gaps(lengths, total, left_out)
    return sorted(left_out)


def kept_rows(total: int, left_out: list[LeftOut]) -> list[int]:
    """Which sample each row of the pack holds: the last ones stand in for those left out, so that little is moved."""
    gone = {one.row for one in left_out}
    rows = list(range(total - len(gone)))
    for gap, row in zip(
        sorted(row for row in gone if row < len(rows)),
        (row for row in range(len(rows), total) if row not in gone),
        strict=True,
    ):
        rows[gap] = row
    return rows


def count_files(skipped: Iterable[tuple[str, str]]) -> int:
    """For how many files samples were left out, (name, reason) each: a bad photo costs all its composites."""
    return len({(name.partition("/")[0], reason) for name, reason in skipped})


def read_fingerprints(path: Path) -> list[str]:
    """The fingerprints in the ``sources.txt`` of a finished pack."""
    return [line.partition("\t")[0] for line in read_lines(path)]


def _require_few(left_out: list[LeftOut], max_bad_files: int) -> None:
    if (count := count_files(one[1:] for one in left_out)) > max_bad_files:
        raise UserError(
            f"{count} files cannot be used, above the limit of {max_bad_files} bad files, the last for "
            f"{left_out[-1].name}: {left_out[-1].reason}; nrh data verify lists all; mend them or allow more "
            "(data.max_bad_files, nrh data pack --skip-bad)"
        )


def _line(fingerprint: str, left_out: list[LeftOut]) -> str:
    return f"{fingerprint}\t{json.dumps(left_out)}\n" if left_out else f"{fingerprint}\n"


def _done(
    chunks: dict[str, list[int]], lengths: dict[Path, int], total: int, sources: Path, skipping: bool
) -> dict[str, list[LeftOut]]:
    """The chunks that are there, with what was left out of each; all files have their length afterwards."""
    done = {fingerprint: known for fingerprint, known in _progress(sources) if fingerprint in chunks}
    if not skipping:
        done = {fingerprint: known for fingerprint, known in done.items() if not known}
    sizes = {path: path.stat().st_size if path.exists() else -1 for path in lengths}
    if len(done) == len(chunks):
        final = total - sum(map(len, done.values()))  # killed when the gaps were filled, some files or all
        if all(sizes[path] in (total * one, final * one) for path, one in lengths.items()):
            return done
    if any(sizes[path] != total * one for path, one in lengths.items()):
        done = {}
    # Progress on other data must be forgotten before its rows are overwritten.
    replace_text(sources, "".join(_line(*one) for one in done.items()))
    for path, one in lengths.items():
        with open(path, "ab") as file:
            file.truncate(total * one)
    return done


def _progress(sources: Path) -> Iterator[tuple[str, list[LeftOut]]]:
    for line in read_lines(sources):
        fingerprint, _, known = line.partition("\t")
        try:
            yield fingerprint, [LeftOut(*one) for one in json.loads(known or "[]")]
        except (ValueError, TypeError):  # cut off by a crash
            continue


def _fill_gaps(lengths: dict[Path, int], total: int, left_out: list[LeftOut]) -> None:
    """Bring the files to ``kept_rows``. A kill at any moment can be made good: rows that were copied go at the end.

    From a file whose end is gone already, nothing is read and nothing copied.
    """
    kept = kept_rows(total, left_out)
    for path, one in lengths.items():
        with open(path, "r+b") as file:
            for gap, row in enumerate(kept):
                if gap != row:
                    file.seek(row * one)
                    content = file.read(one)
                    file.seek(gap * one)
                    file.write(content)
            file.flush()
            os.fsync(file.fileno())
            file.truncate(len(kept) * one)


def _pack_chunk(
    folder: Path, size: int, names: list[str], skipping: bool, chunk: list[tuple[int, Sample]]
) -> list[LeftOut]:
    """Write the rows of one chunk into the files of ``folder``, and see them onto the disk; what was left out."""
    length = row_bytes(size, names)
    left_out = []
    with ExitStack() as stack:
        files = {name: stack.enter_context(open(folder / name, "r+b")) for name in length}
        for row, sample, values in rows_of(chunk, size):
            if isinstance(values, ImageProblem):
                if not skipping:
                    raise values
                reason = f"{values.path.name}: {values.reason}"  # not its folder: a pack does not depend on its place
                left_out.append(LeftOut(row, f"{sample.dataset}/{sample.name}", reason))
                continue
            for name, file in files.items():
                file.seek(row * length[name])
                file.write(values[name].tobytes())
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    return left_out


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
