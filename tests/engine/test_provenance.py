import json
import subprocess
from pathlib import Path

import pytest

from nrh_dist.engine import provenance


def git(folder, *words):
    author = ["-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *author, *words], check=True, capture_output=True)


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "checkout" / "nrh_dist"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    git(folder.parent, "init")
    return folder


def test_the_commit_is_that_of_a_checkout_of_the_package(package):
    assert provenance._commit(package) is None, "not tracked: a checkout of something else"
    git(package, "add", ".")
    git(package, "commit", "-m", "one")
    commit = provenance._commit(package)
    assert commit and len(commit) == 40
    (package / "__init__.py").write_text("# changed\n")
    assert provenance._commit(package) == f"{commit}+changes"


def test_without_a_checkout_or_git_there_is_no_commit(tmp_path, monkeypatch, package):
    assert provenance._commit(tmp_path) is None
    monkeypatch.setenv("PATH", "")
    assert provenance._commit(package) is None


def test_training_cost_counts_every_worker_of_every_epoch(tmp_path):
    checkpoint = tmp_path / "checkpoints" / "epoch-0002-step-000010"
    rows = [{"epoch": 1, "time_s": 3600.0, "world_size": 2}, {"epoch": 2, "time_s": 5400.0, "world_size": 4}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected = {"hours": 1.5, "workers": 4, "device_hours": 4.0, "device": ""}
    assert provenance.training_cost(checkpoint) == expected, "pruned meanwhile"
    checkpoint.mkdir(parents=True)
    (checkpoint / "meta.json").write_text("{}")
    assert provenance.training_cost(checkpoint) == expected, "an earlier version did not tell the device"
    (checkpoint / "meta.json").write_text('{"device": "NVIDIA H100"}')
    assert provenance.training_cost(checkpoint) == expected | {"device": "NVIDIA H100"}
    assert provenance.training_cost(tmp_path / "exported") is None
    (tmp_path / "metrics.jsonl").unlink()
    assert provenance.training_cost(checkpoint) is None


def test_the_digest_is_of_what_numbers_come_from(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance.nrh_dist, "__file__", str(tmp_path / "__init__.py"))
    for name in ("metrics.py", "engine/score.py", "report/html.py", "cli.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("one")
    before = provenance.source_digest()
    for name in ("report/html.py", "cli.py"):
        (tmp_path / name).write_text("two")
    assert provenance.source_digest() == before
    (tmp_path / "engine/score.py").write_text("two")
    assert provenance.source_digest() != before


def test_the_command_is_what_would_be_typed(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/bin/nrh", "evaluate", "my run", "--data", "x"])
    assert provenance.command() == "nrh evaluate 'my run' --data x"
    assert provenance.environment()["torch"] and Path(provenance.__file__).exists()
