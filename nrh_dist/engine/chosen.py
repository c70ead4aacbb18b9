"""The checkpoint that was last chosen or exported here, for those who name none."""

import json
from pathlib import Path

from nrh_dist.engine.files import write_json
from nrh_dist.location import cache_dir

FILE = "chosen.json"  # in the cache


def note(path: Path) -> None:
    """Remember ``path``. A cache that cannot be written to is no reason to fail."""
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        write_json(cache_dir() / FILE, {"schema": 1, "path": str(path.resolve())})
    except OSError:
        return


def last() -> Path | None:
    """What was noted last, where it is still there."""
    try:
        path = Path(json.loads((cache_dir() / FILE).read_text())["path"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return path if path.exists() else None
