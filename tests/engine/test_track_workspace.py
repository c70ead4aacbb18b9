import json
import os
import subprocess
import sys

import pytest
from tracked import KEY
from wandb_server import WandbServer

from nrh_dist.engine import track_workspace
from nrh_dist.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of wandb-workspaces, when it is imported


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_ENTITY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def sweep(tmp_path):
    folder = tmp_path / "sweep"
    folder.mkdir()
    space = {"model.width": {"choice": [0.1, 0.2]}, "optim.lr": {"loguniform": [0.001, 0.01]}}
    (folder / "sweep.json").write_text(json.dumps({"schema": 2, "metrics": ["val/loss"], "space": space}))
    return folder


def panels(spec):
    """Every panel of a workspace by its kind."""
    sections = spec["section"]["panelBankConfig"]["sections"]
    return {panel["viewType"]: panel["config"] for section in sections for panel in section["panels"]}


def assert_of_sweep(spec):
    found = panels(spec)
    columns = [(one["accessor"], one.get("log")) for one in found["Parallel Coordinates Plot"]["columns"]]
    assert columns[:2] == [("config:model.value.width", False), ("config:optim.value.lr", True)]
    assert columns[2][0] == "summary:val/loss"
    assert found["Parameter Importance"]["targetKey"] == "val/loss"
    assert found["Media Browser"]["mediaKeys"] == ["samples"]
    assert {"Run History Line Plot", "Vega2", "Weave"} <= found.keys()


def test_without_a_key_it_is_a_file(tmp_path, sweep):
    pytest.importorskip("wandb_workspaces")
    said = []
    track_workspace.write("me/photos", sweep, said.append)
    assert len(said) == 1 and said[0].endswith("is not saved there but in photos-workspace.json")
    made = json.loads((tmp_path / "photos-workspace.json").read_text())
    assert (made["entity"], made["project"]) == ("me", "photos")
    assert_of_sweep(made["spec"])


def test_with_a_key_it_is_saved(tmp_path, sweep):
    """In a process of its own, as the SDK leaves a service behind."""
    pytest.importorskip("wandb_workspaces")
    with WandbServer() as server:
        command = [sys.executable, "-m", "nrh_dist", "track", "workspace", "photos", "--sweep", str(sweep)]
        environment = {**os.environ, "WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.url}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (spec,) = server.store.views
    assert_of_sweep(spec)
    assert done.stdout.startswith("saved http") and "/me/photos?nw=" in done.stdout
    assert not list(tmp_path.glob("*.json"))


def test_what_is_missing_is_said_in_a_line(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"is no sweep: it holds no readable sweep\.json"):
        track_workspace.write("photos", tmp_path, print)
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(UserError, match=r"needs the package wandb-workspaces: pip install 'nrh_dist\[wandb\]'"):
        track_workspace.write("photos", None, print)
