"""Files that exist whole or not at all."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 under ``path`` in one step: temporary file, fsync, rename. What fails leaves nothing behind."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON in one step; refuses NaN, which JSON cannot hold."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; lines that a crash cut off or a disk damaged are left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_bytes().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write a JSON-lines file in one step."""
    write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def write_at(descriptor: int, content: memoryview, position: int) -> None:
    """``os.pwrite`` of all bytes: it writes fewer, without an error, where the disk becomes full meanwhile."""
    while content:
        count = os.pwrite(descriptor, content, position)
        content, position = content[count:], position + count


def sync_files(folder: Path) -> None:
    """Flush all that is in ``folder``, names too, so that a rename that follows is of what was written."""
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        elif path.is_file():
            sync(path)
    sync_folder(folder)


def sync(path: Path) -> None:
    """Flush a file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush the names in ``folder`` to the disk, so that a rename survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
