"""Keys are planted where users have theirs, everything runs once, and no file and no line holds one of them."""

import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "engine"))

from tracked import records, wandb_folders

from nrh_dist.engine.storage import open_storage

SPACE = """\
metric: val/mse
trials: 2
scheduler: {none: {max_epochs: 1}}
search: optuna
base: {preset: tiny, model.name: dih_nm, model.width: 0.1}
space:
  optim.lr: {loguniform: [0.0001, 0.01]}
"""
TINY = ("preset=tiny", "model.width=0.1", "train.epochs=1", "track.strip_epochs=1", "track.artifacts=best")
VERBS = (
    ("train", *TINY, "model.name=dih_nm", "data.pack=pack", "run.name=alone"),
    ("train", *TINY, "model.name=dih_m", "data.pack=pack", "run.name=two", "scale.workers=2"),
    ("tune", "space.yaml", "data.pack=pack", "run.name=sweep"),
    ("evaluate", "runs/alone", "runs/sweep", "--data", "sample/iharmony4", "--out", "evaluation"),
    ("report", "evaluation", "runs/sweep", "--out", "report"),
    ("best", "runs", "--export", "chosen"),
    ("track", "evaluation", "evaluation"),
    ("doctor",),
)


@pytest.fixture
def home():
    """Short, because Ray puts sockets below it."""
    folder = Path(mkdtemp(prefix="nrh-"))
    yield folder
    shutil.rmtree(folder)


def run(home: Path, planted: dict[str, str], *words: str) -> str:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "WANDB_", "NRH_"))}
    places = {"HOME": str(home), "RAY_TMPDIR": str(home / "ray"), "NRH_CACHE": str(home / "cache")}
    command = [sys.executable, "-m", "nrh_dist", *words]
    environment = {**kept, **places, **planted, "WANDB_MODE": "offline", "RAY_AUTH_MODE": "token"}
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout + done.stderr


def begun(run: Path) -> list[dict[str, Any]]:
    """What W&B was told at the start of a run."""
    return [records(folder, "run")[0] for folder in wandb_folders(run)]


@pytest.mark.slow
def test_planted_keys_are_in_no_file_and_no_line(home):
    planted = {
        "WANDB_API_KEY": secrets.token_hex(20),
        "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
        "MY_PASSWORD": secrets.token_hex(20),
    }
    token = home / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    (home / "space.yaml").write_text(SPACE)
    said = run(home, planted, "data", "sample", "sample")
    said += run(home, planted, "data", "pack", "sample/iharmony4", "pack", "--size", "64")
    for words in VERBS:
        said += run(home, planted, *words)

    trials = [record for path in home.glob("runs/sweep/trials/t*") for record in begun(path)]
    assert {one["run_group"] for one in trials} == {"sweep"} and len({one["run_id"] for one in trials}) == 2

    hidden = {**planted, "Ray's token": token.read_text()}
    assert not [name for name, secret in hidden.items() if secret in said]
    files = [path for path in home.rglob("*") if path.is_file() and path != token]
    kinds = {path.suffix for path in files}
    assert {".wandb", ".yaml", ".json", ".jsonl", ".safetensors", ".pt", ".log", ".db", ".html"} <= kinds
    found = [
        (name, str(path)) for path in files for name, secret in hidden.items() if secret.encode() in path.read_bytes()
    ]
    assert not found


IN_STORAGE = (
    ("train", *TINY, "model.name=dih_nm", "data.pack=pack", "run.name=alone", "scale.gpus_per_worker=0"),
    ("tune", "space.yaml", "data.pack=pack", "run.name=sweep", "scale.gpus_per_worker=0"),
)


@pytest.mark.slow
def test_planted_keys_of_a_storage_are_in_no_file_and_not_in_it(home, s3):
    """Runs and a sweep that are copied to an S3 server; its keys are those that the copying used."""
    planted = {"AWS_ACCESS_KEY_ID": secrets.token_hex(20), "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20)}
    (home / "space.yaml").write_text(SPACE)
    said = run(home, planted, "data", "sample", "sample")
    said += run(home, planted, "data", "pack", "sample/iharmony4", "pack", "--size", "64")
    for words in IN_STORAGE:
        said += run(home, {**planted, "NRH_STORAGE": s3.address}, *words)
    place = open_storage(s3.address)
    objects = {name: place.read(name) for name in place.sizes()}
    assert "alone/best.json" in objects
    assert any(name.startswith("sweep/") and name.endswith("manifest.json") for name in objects)
    asked = "\n".join(s3.seen)
    for name, secret in planted.items():
        assert secret not in said and secret not in asked, name
        held = [key for key, content in objects.items() if secret.encode() in content]
        held += [str(path) for path in home.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
        assert not held, (name, held)
