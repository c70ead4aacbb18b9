"""Files of reports: written in one step, and what the disk refuses told in one line."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nrh_dist.errors import UserError


@contextmanager
def explained() -> Iterator[None]:
    """What cannot be read or written becomes a ``UserError`` that names the file."""
    try:
        yield
    except OSError as error:
        file = error.filename2 if isinstance(error.filename2, str) else error.filename
        where = f"cannot read or write {file}" if file else "cannot read or write a file"
        raise UserError(f"{where}: {error.strerror or error}; mend that and give the same command again") from None


@explained()
def write_text(path: Path, text: str) -> None:
    """Write UTF-8 under ``path`` in one step: a failure leaves what was there as it was."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def install(partial: Path, out: Path) -> None:
    """Put a finished folder in the place of an earlier one, which stays if that fails."""
    if not out.exists():
        partial.rename(out)
        return
    earlier = out.with_name(f".{out.name}.earlier-{os.getpid()}")
    out.rename(earlier)
    try:
        partial.rename(out)
    except BaseException:
        earlier.rename(out)
        raise
    shutil.rmtree(earlier, ignore_errors=True)  # the new one is there
