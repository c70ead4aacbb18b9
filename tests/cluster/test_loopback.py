"""cluster/local.yaml on one machine behind sshd on 127.0.0.1: ray up, ray submit, ray job submit, ray down."""

import csv
import re
import subprocess
import time

import machines
import pytest

pytestmark = pytest.mark.cluster

SPACE = """\
metric: val/mse
trials: 2
scheduler: {none: {max_epochs: 1}}
base: {preset: tiny, model.name: dih_nm, model.width: 0.1, train.batch_size: 32}
space:
  optim.lr: {loguniform: [0.0001, 0.01]}
"""
JOB = "cluster/job.py"
TINY = ["preset=tiny", "model.name=dih_nm", "model.width=0.1", "train.epochs=1", "train.batch_size=32"]


@pytest.fixture(scope="module")
def loopback(tmp_path_factory):
    if reason := machines.missing():
        pytest.skip(reason)
    with machines.cluster(tmp_path_factory.mktemp("loopback"), [None], cpus=2) as cluster:
        print(f"\nray up: {cluster.up():.1f} s")
        cluster.ray("submit", str(cluster.file), JOB, "--", "data", "sample", f"{cluster.shared}/sample")
        yield cluster


def submitted(cluster, *words, code=0):
    started = time.monotonic()
    said = cluster.ray("submit", str(cluster.file), JOB, "--", *words, code=code)
    print(f"ray submit {words[0]}: {time.monotonic() - started:.1f} s")
    return said


def data(cluster):
    return f"data.root={cluster.shared}/sample/iharmony4", f"run.root={cluster.shared}/runs"


def test_a_training_and_what_a_shell_makes_of_its_words(loopback):
    """A variable is the cluster's own; the launcher hands words over unquoted."""
    words = [*TINY, f"data.root={loopback.shared}/sample/iharmony4", "run.root=$NRH_STORAGE/runs", "scale.workers=2"]
    said = submitted(loopback, "train", *words, "run.name=first", "'track.group=a group'")
    assert "epoch 1 of 1" in said
    folder = loopback.shared / "nrh" / "runs" / "first"
    assert "group: a group" in (folder / "config.yaml").read_text()
    assert "is finished" in submitted(loopback, "train", *words, "run.name=first", "'track.group=a group'")


def test_a_sweep(loopback):
    space = loopback.shared / "space.yaml"
    space.write_text(SPACE)
    submitted(loopback, "tune", str(space), *data(loopback), "run.name=sweep")
    with (loopback.shared / "runs" / "sweep" / "trials.csv").open() as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["finished", "finished"]


def test_failures_exit_non_zero(loopback):
    assert "Did you mean" in submitted(loopback, "train", "model.nmae=ptc_dih", code=1)
    said = submitted(loopback, "train", *TINY, *data(loopback), "run.name=diverges", "optim.lr=1e30", code=1)
    assert "lower optim.lr" in said
    assert "no checkpoint" in submitted(loopback, "evaluate", "none", "--data", "none", "--out", "e", code=1)


def test_a_run_that_outlives_its_client(loopback):
    """As cluster/job.py says it: submitted, followed, and stopped with a checkpoint saved."""
    words = " ".join([*TINY, *data(loopback), "run.name=long", "train.epochs=400"])
    job = f"ray job submit --no-wait --submission-id long -- python nrh_dist/cluster/job.py train {words}"
    loopback.ray("exec", str(loopback.file), job)
    folder = loopback.shared / "runs" / "long"
    machines.wait_for(lambda: list(folder.glob("checkpoints/*/manifest.json")), "a checkpoint of a job")
    loopback.ray("exec", str(loopback.file), "ray job stop long")
    log = loopback.ray("exec", str(loopback.file), "ray job logs long")
    assert "epoch 1 of 400" in log and "stopped at step" in log
    assert machines.job_status(loopback, "long") == "STOPPED"


def test_only_the_token_opens_it_and_only_its_owner_reads_it(loopback):
    """Without it nobody joins; ray up made no file of it that others read, and the dashboard is not on the network."""
    head = loopback.head
    with pytest.raises(AssertionError, match=r"(?i)auth|token"):
        head.shell(
            "HOME=/nonexistent RAY_AUTH_MODE=disabled timeout 60 python -c \"import ray; ray.init('127.0.0.1:6379')\""
        )
    assert head.shell("stat -c %a ~/.ray/auth_token").strip() == "600"
    token = (loopback.home / ".ray" / "auth_token").read_text().strip()
    found = subprocess.run(["grep", "-rl", "--", token, str(loopback.folder)], capture_output=True, text=True).stdout
    assert {path.rsplit("/", 1)[-1] for path in found.splitlines()} == {"auth_token"}, found
    listening = head.shell("ss -Hltn | awk '{print $4}'").split()
    assert any(re.fullmatch(r"127\.0\.0\.1:8265", one) for one in listening), listening


def test_ray_down_ends_it(loopback):
    loopback.ray("down", "-y", str(loopback.file))
    machines.wait_for(lambda: not loopback.head.processes("raylet"), "the end of Ray")
    assert loopback.head.is_up
