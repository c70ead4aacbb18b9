"""What evaluations are compared by."""

from pathlib import Path


def content(folder: Path) -> dict[str, bytes]:
    """All files but the one that tells what the evaluation took."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    assert found.pop("provenance.json")
    return found
