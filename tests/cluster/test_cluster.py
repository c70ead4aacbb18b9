"""The launcher's files, offline: its own schema, what they ship, and how words get through it to the job script."""

import copy
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ray import autoscaler

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
CONFIGS = [CLUSTER / name for name in ("config.yaml", "gcp.yaml", "local.yaml")]
every_config = pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)


def validate(content):
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(content)))


@every_config
def test_the_launcher_accepts_it_and_a_typo_is_caught(path):
    """At each level that the launcher's schema closes; of the provider's keys it knows the names."""
    content = yaml.safe_load(path.read_text())
    validate(content)
    levels = [(), ("auth",), ("docker",), *(("available_node_types", name) for name in ("head", "gpu_spot"))]
    caught = 0
    for level in levels:
        damaged = copy.deepcopy(content)
        inner = damaged
        for name in level:
            inner = inner.get(name, {})
        if not inner:  # local.yaml has neither images nor kinds of machines
            continue
        inner["max_worker"] = 1
        with pytest.raises(Exception, match="max_worker"):
            validate(damaged)
        caught += 1
    assert caught == (2 if path.name == "local.yaml" else 5)
    schema = json.loads((Path(autoscaler.__file__).parent / "ray-schema.json").read_text())
    assert set(content["provider"]) <= set(schema["properties"]["provider"]["properties"])


@every_config
def test_it_ships_package_lock_and_token_and_holds_no_secret(path):
    content = yaml.safe_load(path.read_text())
    mounts = content["file_mounts"]
    assert mounts["~/.ray/auth_token"] == "~/.ray/auth_token"
    shipped = {target.removeprefix("~/nrh_dist/"): source for target, source in mounts.items() if "nrh_dist" in target}
    assert all(target == source and (ROOT / source).exists() for target, source in shipped.items())
    assert {"nrh_dist", "cluster", "search_spaces", ".ci", "pyproject.toml", "README.md", "LICENSE"} == set(shipped)
    commands = "\n".join(content["setup_commands"])
    assert "--require-hashes -r ~/nrh_dist/.ci/requirements.lock" in commands
    assert "RAY_AUTH_MODE=token" in commands and "chmod 600 ~/.ray/auth_token" in commands
    assert "--dashboard-host=127.0.0.1" in content["head_start_ray_commands"][-1]
    text = path.read_text().lower()
    assert "api_key" not in text and "0.0.0.0" not in text


@every_config
def test_data_and_runs_are_one_setting(path):
    text = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
    assert len(re.findall(r"NRH_STORAGE=\S+", text)) == 1
    rest = re.sub(r"NRH_STORAGE=\S+", "", text)
    assert "s3://" not in rest and "gs://" not in rest and "/data" not in rest


@pytest.mark.parametrize(
    ("name", "is_spot"),
    [
        ("config.yaml", lambda node: node.get("InstanceMarketOptions") == {"MarketType": "spot"}),
        ("gcp.yaml", lambda node: (node.get("scheduling") or [{}])[0].get("provisioningModel") == "SPOT"),
    ],
)
def test_workers_are_spot_gpus_that_may_go_and_the_head_is_neither(name, is_spot):
    content = yaml.safe_load((CLUSTER / name).read_text())
    types = dict(content["available_node_types"])
    head = types.pop(content["head_node_type"])
    assert head["resources"] == {"CPU": 0} and not is_spot(head["node_config"])
    assert types
    for worker in types.values():
        assert worker["min_workers"] == 0 and worker["resources"]["GPU"] >= 1 and is_spot(worker["node_config"])


@every_config
def test_its_image_and_the_installed_ray_are_of_one_version(path):
    import ray

    content = yaml.safe_load(path.read_text())
    assert (
        content.get("docker", {}).get("image", f":{ray.__version__}-").split(":")[1].startswith(f"{ray.__version__}-")
    )


@every_config
def test_its_own_commands_are_of_this_file_and_of_keys_that_exist(path):
    from nrh_dist import config

    head = [line[1:].split("#")[0].strip() for line in path.read_text().splitlines() if line.startswith("#   ray ")]
    assert [line.split()[1] for line in head if line.split()[1] != "up"] == ["get-auth-token", "submit", "down"]
    (submit,) = [shlex.split(line) for line in head if line.startswith("ray submit")]
    assert submit[2:6] == [f"cluster/{path.name}", "cluster/job.py", "--", "train"]
    assert config.load(None, submit[6:]).run.name == "first"


# ------------------------------------------------------------------------------- words

TELLS = "import json, os, sys; print(json.dumps([sys.argv[1:], os.getcwd()]))\n"


@pytest.fixture
def machine(tmp_path):
    """The home of a head: an environment as the setup commands write it, and a job script that tells what it got."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".bashrc").write_text(f"export NRH_STORAGE=s3://bucket/nrh PATH={tmp_path}/bin:$PATH\n")
    (home / "job.py").write_text(TELLS)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    docker = tmp_path / "bin" / "docker"
    docker.write_text('#!/bin/bash\nwhile [[ $1 != /bin/bash ]]; do shift; done\nexec "$@"\n')
    docker.chmod(0o755)
    return home


def through_the_launcher(command, home, monkeypatch, in_docker):
    """What arrives on the head of ``command``, a line of the user's shell: its join and its quoting are Ray's own."""
    from click.testing import CliRunner
    from ray.autoscaler._private.command_runner import _with_interactive
    from ray.autoscaler._private.docker import with_docker_exec
    from ray.scripts import scripts

    typed = subprocess.run(
        ["bash", "-c", f"ray() {{ printf '%s\\0' \"$@\"; }}; {command}"], capture_output=True, text=True
    )
    sent = []
    monkeypatch.setattr(scripts, "rsync", lambda *_, **__: None)
    monkeypatch.setattr(scripts, "exec_cluster", lambda *_, cmd, **__: sent.append(cmd))
    result = CliRunner().invoke(scripts.cli, typed.stdout.split("\0")[:-1], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    (line,) = sent
    if in_docker:
        (line,) = with_docker_exec([" ".join(_with_interactive(line))], container_name="nrh", docker_cmd="docker")
    remote = " ".join(_with_interactive(line))
    path = f"{home.parent}/bin:{os.environ['PATH']}"
    environment = {"HOME": str(home), "PATH": path, "TERM": "dumb"}
    # A session of its own: an interactive bash takes the terminal, if there is one.
    done = subprocess.run(
        ["bash", "-c", remote], env=environment, capture_output=True, text=True, cwd=home, start_new_session=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])[0]


@pytest.mark.parametrize("in_docker", [False, True], ids=["plain", "docker"])
def test_words_as_the_job_script_documents_them(machine, monkeypatch, in_docker):
    header = (CLUSTER / "job.py").read_text().split('"""')[1]
    lines = [line for line in header.splitlines() if line.startswith("ray submit cluster/")]
    (twice,) = re.findall(r"quoted twice: (.*)\.", header)
    assert len(lines) == 2
    first, second = (through_the_launcher(line, machine, monkeypatch, in_docker) for line in lines)
    assert first == ["train", "data.pack=s3://bucket/nrh/packs/iharmony4", "run.name=first"]
    assert second == ["tune", "search_spaces/gated.yaml", "data.pack=s3://bucket/nrh/packs/iharmony4"]
    quoted = through_the_launcher(f"{lines[0]} {twice}", machine, monkeypatch, in_docker)
    assert quoted == [*first, "data.transforms=[exposure, contrast]"]


def test_a_word_that_is_quoted_once_falls_apart(machine, monkeypatch):
    """Why the job script says twice: should Ray ever quote what it joins, it shall say otherwise."""
    words = through_the_launcher("ray submit c.yaml job.py -- train 'track.group=a b'", machine, monkeypatch, False)
    assert words == ["train", "track.group=a", "b"]


# ------------------------------------------------------------------------------- the job script


def test_job_runs_any_verb_and_fails_as_it_fails():
    job = [sys.executable, str(CLUSTER / "job.py")]
    helped = subprocess.run([*job, "train", "--help"], capture_output=True, text=True)
    assert helped.returncode == 0 and "scale.workers" in helped.stdout
    failed = subprocess.run([*job, "train", "model.nmae=ptc_dih"], capture_output=True, text=True)
    assert failed.returncode == 1 and "Did you mean" in failed.stderr


def test_job_finds_the_projects_files_from_the_home_folder(tmp_path):
    """Where the launcher puts it: there, a folder of the package's own name lies beside it."""
    (tmp_path / "nrh_dist").symlink_to(ROOT)
    (tmp_path / "job.py").write_bytes((CLUSTER / "job.py").read_bytes())
    words = ["tune", "search_spaces/gated.yaml", "data.root=/data", "--dry-run"]
    environment = {**os.environ, "HOME": str(tmp_path)}
    command = [sys.executable, str(tmp_path / "job.py"), *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "32 trials" in done.stdout, done.stderr


def test_job_joins_the_cluster_of_its_machine(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("job", CLUSTER / "job.py")
    assert spec and spec.loader
    job = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(job)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    seen = []

    def run(words):
        seen.append((os.environ["RAY_ADDRESS"], os.getcwd(), sys.path[0], words))

    monkeypatch.setattr("nrh_dist.cli.main", run)
    try:
        job.main(["train", "model.name=ptc_dih"])
    finally:
        os.environ.pop("RAY_ADDRESS", None)
    assert seen == [("auto", str(ROOT), str(ROOT), ["train", "model.name=ptc_dih"])]
