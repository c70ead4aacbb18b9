"""Imports run downward only, and ray, torch and wandb stay where they belong."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "nrh_dist"
FLOORS = {
    "errors": 0,
    "failures": 0,
    "schema": 0,
    "config": 0,
    "location": 0,
    "models": 1,
    "metrics": 1,
    "color": 1,
    "losses": 1,
    "perceptual": 1,
    "data": 2,
    "photo": 2,
    "engine": 3,
    "launch": 4,
    "workflows": 5,
    "cli": 6,
    "__main__": 7,
}
# A floor reads result files only: of the house it knows what a mistake and a failure is, and nothing else.
REPORT_KNOWS = {"errors", "failures", "report"}
ONLY_IN = {
    "ray": {"launch"},
    "wandb": {"engine"},
    "typer": {"cli"},
    "pyvips": {"photo"},
    "onnxruntime": {"engine"},
    "aiohttp": {"workflows"},
    "torch": {"models", "metrics", "color", "losses", "perceptual", "data", "engine", "launch", "workflows"},
}


def imports(source: str) -> set[str]:
    """Every module that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names if node.module == "nrh_dist")
    return found


def part(path: Path) -> str:
    """The room of a file: its folder, or its own name directly in the package."""
    inner = path.relative_to(PACKAGE).parts
    return inner[0] if len(inner) > 1 else path.stem


def violations(room: str, source: str) -> list[str]:
    """What of a file in ``room`` breaks the rules."""
    broken = []
    for module in imports(source):
        names = module.split(".")
        if names[0] == "nrh_dist":
            if len(names) < 2 or names[1] not in {*FLOORS, "report"}:
                continue
            if room == "report":
                upward = names[1] not in REPORT_KNOWS
            elif names[1] == "report":
                upward = FLOORS[room] < FLOORS["workflows"]
            else:
                upward = FLOORS[names[1]] > FLOORS[room]
            if upward:
                broken.append(f"{room} imports {module}")
        elif names[0] in ONLY_IN and room not in ONLY_IN[names[0]]:
            broken.append(f"{room} imports {names[0]}")
    return broken


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downward(path):
    if path != PACKAGE / "__init__.py":
        assert violations(part(path), path.read_text()) == []


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("data", "from nrh_dist.engine import fit"),
        ("config", "def f():\n    from nrh_dist import metrics"),
        ("engine", "import ray.train"),
        ("report", "import torch"),
        ("report", "from nrh_dist.data import pack"),
        ("launch", "from nrh_dist.cli import main"),
        ("models", "import wandb"),
    ],
)
def test_the_rule_can_fail(room, source):
    assert violations(room, source)


def test_every_room_has_a_floor():
    rooms = {part(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert rooms == {*FLOORS, "report"}
