"""The file system behind an address: whole files by name below one place, each request with a time limit and retries.

An object store has no rename: a file is written under its final name and is there when its last byte is. What belongs
together is decided by a manifest that is written last. In a folder, files appear by rename. pyarrow is imported by the
first request.
"""

import hashlib
import os
import re
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from datetime import timedelta
from pathlib import Path, PurePosixPath
from threading import Thread
from typing import Any, TypeVar
from uuid import uuid4

from nrh_dist.errors import UserError
from nrh_dist.location import Location, is_safe, parse

CONNECT_SECONDS = 5.0
SILENT_SECONDS = 10.0  # without a byte, after which S3's client gives a connection up
LIMIT_SECONDS = 30.0  # for a request of no size
SLOWEST = 1e6  # bytes a second: what a file may take beside
ATTEMPTS = 3
PAUSE_SECONDS = 1.0  # before the second attempt; twice as long before each further one
CHUNK = 8 * 2**20
PERMANENT = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY_ID", "SIGNATURE", "Forbidden", "Unauthorized")

Result = TypeVar("Result")


class StorageProblem(UserError):
    """A request to the storage failed, after all attempts."""


class Storage:
    """Files below ``location``. Names are relative, with "/" between folders, and must be ``location.is_safe``.

    Every method raises ``StorageProblem``, one line with the reason, after ``ATTEMPTS`` attempts of ``LIMIT_SECONDS``
    and the time that the size takes at ``SLOWEST``; at once where another attempt is in vain.
    """

    def __init__(self, location: Location, files: "_Files | None" = None) -> None:
        self.location = location
        self._files = files or _Files(location)

    def __str__(self) -> str:
        return str(self.location)

    def child(self, name: str) -> "Storage":
        """The place ``name`` below this one."""
        return Storage(self.location.child(name), self._files)

    def put(self, source: Path | bytes, name: str) -> str:
        """Write a file or some bytes under ``name``; returns the sha256 of what was sent."""
        if isinstance(source, bytes):
            return self._put(source, len(source), name)
        descriptor = os.open(source, os.O_RDONLY)
        try:
            return self.put_open(descriptor, name)
        finally:
            os.close(descriptor)

    def put_open(self, descriptor: int, name: str) -> str:
        """``put`` of an open file, as long as it is now, also where its name is gone since."""
        return self._put(descriptor, os.fstat(descriptor).st_size, name)

    def _put(self, source: int | bytes, size: int, name: str) -> str:
        path = self._path(name)

        def write() -> str:
            # A request that was given up goes on by itself: it must end with the whole file, from its own descriptor.
            own = source if isinstance(source, bytes) else os.dup(source)
            try:
                return self._files.write(own, size, path)
            finally:
                if isinstance(own, int):
                    os.close(own)

        return self._tried(f"write {name}", write, size)

    def get(self, name: str, target: Path, size: int = 0) -> None:
        """Write the file ``name`` of ``size`` bytes to ``target``, whole or not at all. ``FileNotFoundError``."""
        path = self._path(name)

        def read() -> None:
            partial = target.with_name(f".{target.name}.{uuid4().hex}.partial")
            try:
                with self._files.opened(path) as stream, partial.open("wb") as file:
                    while chunk := stream.read(CHUNK):
                        file.write(chunk)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(partial, target)
            finally:
                partial.unlink(missing_ok=True)

        self._tried(f"read {name}", read, size)

    def read(self, name: str) -> bytes | None:
        """The content of a small file; None where there is none."""
        path = self._path(name)

        def read() -> bytes:
            with self._files.opened(path) as stream:
                return bytes(stream.read())

        try:
            return self._tried(f"read {name}", read)
        except FileNotFoundError:
            return None

    def sizes(self) -> dict[str, int]:
        """The name and size of each file below this place, but for hidden ones.

        A name that would lead out of a folder is left out: nothing can ask for it.
        """
        base = self.location.path.rstrip("/")

        def listed() -> dict[str, int]:
            return {path.removeprefix(f"{base}/"): size for path, size in self._files.listed(base)}

        found = self._tried("list files", listed)
        return {name: size for name, size in found.items() if is_safe(name) and not _is_hidden(name)}

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        path = self._path(name)
        self._tried(f"remove {name}", lambda: self._files.remove(path))

    def remove_folder(self, name: str) -> None:
        """Remove all files below ``name``, if there are any."""
        path = self._path(name)
        self._tried(f"remove {name}", lambda: self._files.remove_folder(path))

    def _path(self, name: str) -> str:
        if not is_safe(name):
            raise StorageProblem(f"{self} holds a file whose name leads out of its folder: {name!r}")
        return f"{self.location.path.rstrip('/')}/{name}"

    def _tried(self, what: str, act: Callable[[], Result], size: int = 0) -> Result:
        limit, reason = LIMIT_SECONDS + size / SLOWEST, ""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE_SECONDS * 2 ** (attempt - 1))
            try:
                return within(limit, act)
            except FileNotFoundError:
                raise
            except TimeoutError:
                reason = f"no answer within {limit:.0f} s"
            except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's are of these
                reason = _reason(error)
                if not isinstance(error, OSError) or any(word in reason for word in PERMANENT):
                    break
        raise StorageProblem(f"the storage {self} fails (cannot {what}: {reason})")


def open_storage(word: str, key: str = "storage") -> Storage:
    """The storage that a word of a configuration or the command line means; asks for nothing yet."""
    return Storage(parse(word, key))


def within(seconds: float, act: Callable[[], Result]) -> Result:
    """``act()`` in a thread of its own; ``TimeoutError`` where it takes longer: then it is left to itself."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(act())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, daemon=True, name="storage").start()
    return future.result(seconds)


class _Files:
    """pyarrow's file system of a place, made by its first use; paths as it has them."""

    def __init__(self, location: Location) -> None:
        self._location = location
        self._made: Any = None

    @property
    def system(self) -> Any:
        self._made = self._made or file_system(self._location)
        return self._made

    def write(self, source: int | bytes, size: int, path: str) -> str:
        digest = hashlib.sha256()
        target = path if self._location.kind else self._beside(path)
        with self.system.open_output_stream(target) as stream:
            for start in range(0, size, CHUNK):
                length = min(CHUNK, size - start)
                is_open = isinstance(source, int)
                chunk = os.pread(source, length, start) if is_open else source[start : start + length]  # type: ignore
                digest.update(chunk)
                stream.write(chunk)
        if target != path:
            os.replace(target, path)
        return digest.hexdigest()

    def _beside(self, path: str) -> str:
        parent = Path(path).parent
        parent.mkdir(parents=True, exist_ok=True)
        return str(parent / f".{Path(path).name}.{uuid4().hex}.partial")

    def opened(self, path: str) -> Any:
        return self.system.open_input_stream(path)

    def listed(self, base: str) -> list[tuple[str, int]]:
        from pyarrow import fs

        infos = self.system.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))
        return [(info.path, info.size) for info in infos if info.type == fs.FileType.File]

    def remove(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self.system.delete_file(path)

    def remove_folder(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self.system.delete_dir(path)


def file_system(location: Location) -> Any:
    """pyarrow's file system for a place, with time limits, which its own reading of an address cannot set."""
    from pyarrow import fs

    options = dict(location.options)
    if location.kind == "s3":
        region = options.pop("region", None)
        if region is None and "endpoint_override" in options:  # else S3's client asks a service of AWS's machines
            region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        return fs.S3FileSystem(
            **options,
            region=region or fs.resolve_s3_region(location.path.split("/")[0]),
            connect_timeout=CONNECT_SECONDS,
            request_timeout=SILENT_SECONDS,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
            background_writes=False,  # of large files: one part at a time, so that memory stays as it is
            allow_delayed_open=True,  # a small file is one request
        )
    if location.kind == "gs":
        return fs.GcsFileSystem(**options, retry_time_limit=timedelta(seconds=LIMIT_SECONDS))
    return fs.LocalFileSystem()


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name).parts)


def _reason(error: Exception) -> str:
    """What went wrong, in few words."""
    text = " ".join(str(error).split())
    match = re.search(r"AWS Error (.*?)( \(Request ID|; Details|$)", text)
    return match[1] if match else getattr(error, "strerror", None) or text[:200]
