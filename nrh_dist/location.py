"""Where files are kept: the cache of this machine, and the grammar of ``storage`` and words such as s3://bucket/run."""

import os
import re
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from nrh_dist.errors import UserError

# As pyarrow's file systems call them. Keys and passwords are none of them: an address is written to files and logs.
OPTIONS = {"s3": ("endpoint_override", "scheme", "region"), "gs": ("endpoint_override", "scheme")}
VARIABLE = "NRH_STORAGE"


class Location(NamedTuple):
    """A place: ``kind`` s3 or gs with ``path`` bucket/prefix, or ``kind`` "" with the path of a folder."""

    kind: str
    path: str
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        if not self.kind:
            return self.path
        return f"{self.kind}://{self.path}" + (f"?{urlencode(self.options)}" if self.options else "")

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.path).name

    def child(self, name: str) -> "Location":
        """The place ``name``, which must be safe, below this one."""
        assert is_safe(name), name
        return self._replace(path=f"{self.path.rstrip('/')}/{name}")


def cache_dir() -> Path:
    """Where this machine keeps packs, features and compiled code, all of which can be made again.

    $NRH_CACHE, or nrh_dist in $XDG_CACHE_HOME or ~/.cache.
    """
    if os.environ.get("NRH_CACHE"):
        return Path(os.environ["NRH_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nrh_dist"


def is_remote(word: str | Path) -> bool:
    """Whether a word of the command line or a configuration is an address such as s3://..., not a path of a disk."""
    return bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", str(word)))


def parse(word: str, key: str = "storage") -> Location:
    """The place that ``word`` means: s3://bucket/prefix, gs://bucket/prefix, or a folder.

    ``?endpoint_override=HOST:PORT&scheme=http`` names another S3 server. ``UserError`` naming ``key`` for anything
    else, and for an address that carries a user, a password or a key, which is not repeated.
    """
    if not is_remote(word):
        return Location("", str(Path(word)))
    parts = urlsplit(word)
    given = parse_qsl(parts.query, keep_blank_values=True)
    known = OPTIONS.get(parts.scheme)
    if known is None:
        raise UserError(f"{key}: {parts.scheme}:// is unknown: give s3://bucket/prefix, gs://bucket/prefix or a folder")
    if {"@", ":"} & set(parts.netloc) or any("@" in value for _, value in given):
        raise UserError(f"{key} carries a user, a password or a key: {_WITHOUT}")
    if strange := [name for name, _ in given if name not in known]:
        raise UserError(f"{key} has the option {strange[0]}; {', '.join(known)} are allowed, and no key: {_WITHOUT}")
    path = f"{parts.netloc}{parts.path}".rstrip("/")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", parts.netloc) or not is_safe(path) or parts.fragment:
        rule = "must be a bucket and perhaps folders in it, as s3://bucket/prefix"
        raise UserError(f"{key}={parts.scheme}://{path}: {key} {rule}")
    if dict(given).get("scheme", "http") not in ("http", "https"):
        raise UserError(f"{key}: its option scheme must be http or https")
    return Location(parts.scheme, path, tuple(given))


def is_safe(name: str) -> bool:
    """Whether ``name``, as someone else's list of files has it, stays below the folder that it is put into."""
    is_plain = all(part not in ("", ".", "..") for part in name.split("/"))
    return is_plain and "\\" not in name and name.isprintable()


def absolute(word: str, base: Path) -> str:
    """``word`` as it means the same in any working folder: a path seen from ``base``, or an address as it is."""
    return word if is_remote(word) else str(base / word)


_WITHOUT = (
    "give it without; keys come from the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
    "GOOGLE_APPLICATION_CREDENTIALS), from ~/.aws, or from the machine's role"
)
