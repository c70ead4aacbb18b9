"""The numbers of an unfinished evaluation: on the disk as soon as they are known, each row once.

values.f64     rows x width float64, the rows in the order of the evaluation
done.txt       one finished chunk a line: its number, the CRC-32 of its values, and the seconds since the one before
header.json    what is scored, by what, and on what
"""

import json
import os
import time
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from nrh_dist.engine.files import write_json

FILES = VALUES, DONE, HEADER = "values.f64", "done.txt", "header.json"
BLOCK = 1 << 20  # bytes


class Shards:
    """A matrix of ``rows`` x ``width`` that is filled by chunks of ``chunk`` rows, in any order and by several lives.

    A chunk counts as there if its values have the sum that was noted after they were written. Values of another
    ``header`` are forgotten. Memory does not grow with the rows. ``OSError`` where the disk has no room for all of it.
    ``seconds`` is what earlier lives took, each from its beginning to the last chunk that it finished.
    """

    def __init__(self, folder: Path, header: dict[str, Any], rows: int, width: int, chunk: int) -> None:
        self._folder, self._rows, self._chunk = folder, rows, chunk
        header = json.loads(json.dumps({**header, "rows": rows, "width": width, "chunk": chunk}))
        if read_header(folder) != header:
            remove(folder)
            write_json(folder / HEADER, header)
        with (folder / VALUES).open("ab") as file:
            _allocate(file, 8 * rows * width)
        self._values = np.memmap(folder / VALUES, np.float64, mode="r+", shape=(rows, width))
        noted = self._noted()
        self.seconds = sum(seconds for _, _, seconds in noted)
        self._done = {number for number, crc, _ in noted if crc == self._crc(number)}
        self._since = time.monotonic()

    def missing(self) -> list[int]:
        """The chunks that are not there, in order."""
        return [number for number in range(-(-self._rows // self._chunk)) if number not in self._done]

    def rows_of(self, chunk: int) -> slice:
        """The rows of a chunk; the last one may be shorter."""
        return slice(chunk * self._chunk, min((chunk + 1) * self._chunk, self._rows))

    def write(self, chunks: Iterable[int], values: np.ndarray) -> None:
        """Keep the values of neighbouring or other ``chunks``, one below the other."""
        start = 0
        with (self._folder / DONE).open("a") as log:
            for number in chunks:
                place = self.rows_of(number)
                stop = start + place.stop - place.start
                self._values[place] = values[start:stop]
                start = stop
                now = time.monotonic()
                log.write(f"{number} {self._crc(number)} {now - self._since:.6f}\n")
                self._since = now
                self._done.add(number)

    def column(self, position: int) -> np.ndarray:
        """One column of all rows: a copy."""
        return np.array(self._values[:, position])

    def read(self, rows: slice) -> np.ndarray:
        """All columns of some rows: a copy."""
        return np.array(self._values[rows])

    def _noted(self) -> list[tuple[int, int, float]]:
        log = self._folder / DONE
        found = []
        for line in log.read_text(errors="replace").split("\n")[:-1] if log.exists() else []:
            with suppress(ValueError):  # cut off or damaged
                number, crc, seconds = line.split(" ")
                if 0 <= int(number) * self._chunk < self._rows:
                    found.append((int(number), int(crc), float(seconds)))
        return found

    def _crc(self, chunk: int) -> int:
        return zlib.crc32(self._values[self.rows_of(chunk)].tobytes())


def _allocate(file: IO[bytes], size: int) -> None:
    """Give ``file`` all of its ``size`` bytes now: a map of a full disk would end the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:  # macOS
        for start in range(file.tell(), size, BLOCK):
            file.write(bytes(min(BLOCK, size - start)))
    file.truncate(size)


def read_header(folder: Path) -> dict[str, Any] | None:
    """What the numbers in ``folder`` are of; None where there are none."""
    try:
        header: dict[str, Any] = json.loads((folder / HEADER).read_text())
    except (OSError, ValueError):
        return None
    return header


def is_begun(folder: Path) -> bool:
    """Whether ``folder`` holds at least one finished chunk."""
    log = folder / DONE
    return log.exists() and log.stat().st_size > 0


def remove(folder: Path) -> None:
    """Delete the files, as far as they are there."""
    for name in (DONE, VALUES, HEADER):
        (folder / name).unlink(missing_ok=True)
