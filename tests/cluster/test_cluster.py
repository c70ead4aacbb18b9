"""The cluster files, offline: the launcher's own schema, and the job script."""

import copy
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

CLUSTER = Path(__file__).parents[2] / "cluster"
CONFIGS = sorted(CLUSTER.glob("*.yaml"))


def validate(content):
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(content)))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_launcher_accepts_it_and_a_typo_is_caught(path):
    content = yaml.safe_load(path.read_text())
    validate(content)
    with pytest.raises(Exception, match="max_worker"):
        validate({**content, "max_worker": 1})


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_it_ships_package_lock_and_token_and_holds_no_secret(path):
    content = yaml.safe_load(path.read_text())
    assert content["file_mounts"]["~/nrh_dist"] == "."
    assert content["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    commands = "\n".join(content["setup_commands"])
    assert "--require-hashes -r ~/nrh_dist/.ci/requirements.lock" in commands
    assert "RAY_AUTH_MODE=token" in commands and "chmod 600" in commands
    assert all("dashboard-host=0.0.0.0" not in command for command in content["head_start_ray_commands"])
    assert "api_key" not in path.read_text().lower()


def test_aws_workers_are_spot_gpus_and_the_head_is_not():
    content = yaml.safe_load((CLUSTER / "config.yaml").read_text())
    head = content["available_node_types"][content["head_node_type"]]
    workers = [one for name, one in content["available_node_types"].items() if name != content["head_node_type"]]
    assert "InstanceMarketOptions" not in head["node_config"]
    assert all(one["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"} for one in workers)
    assert all(one["resources"]["GPU"] >= 1 for one in workers)


def test_job_runs_any_verb_and_fails_as_it_fails():
    job = [sys.executable, str(CLUSTER / "job.py")]
    helped = subprocess.run([*job, "train", "--help"], capture_output=True, text=True)
    assert helped.returncode == 0 and "scale.workers" in helped.stdout
    failed = subprocess.run([*job, "train", "model.nmae=ptc_dih"], capture_output=True, text=True)
    assert failed.returncode == 1 and "Did you mean" in failed.stderr


def test_job_finds_the_projects_files_from_the_home_folder(tmp_path):
    (tmp_path / "nrh_dist").symlink_to(CLUSTER.parent)
    words = ["tune", "search_spaces/gated.yaml", "data.root=/data", "--dry-run"]
    environment = {**os.environ, "HOME": str(tmp_path)}
    command = [sys.executable, str(CLUSTER / "job.py"), *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "32 trials" in done.stdout, done.stderr


def test_job_joins_the_cluster_of_its_machine(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("job", CLUSTER / "job.py")
    assert spec and spec.loader
    job = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(job)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    seen = []

    def run(words):
        seen.append((os.environ["RAY_ADDRESS"], words))

    monkeypatch.setattr("nrh_dist.cli.main", run)
    try:
        job.main(["train", "model.name=ptc_dih"])
    finally:
        os.environ.pop("RAY_ADDRESS", None)
    assert seen == [("auto", ["train", "model.name=ptc_dih"])]
