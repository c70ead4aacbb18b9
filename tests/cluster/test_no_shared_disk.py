"""Four machines that share no disk, only a storage: a head, which trains nothing, and three that do.

Each has a folder of runs of its own. A machine dies, the run is stopped and goes on, and it ends as one that nothing
happened to; a sweep goes through, too.
"""

import csv
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import machines
import pytest
from machines import LAPTOP, NETWORK, job_status, wait_for
from packs import write_small_pack
from test_machines import EPOCHS, INTERVAL, SLOW_JOB, outcome

from nrh_dist.engine import checkpoint
from nrh_dist.engine.files import read_lines

pytestmark = pytest.mark.cluster
PORT = 5555
KEYS = "export AWS_ACCESS_KEY_ID=of-a-test AWS_SECRET_ACCESS_KEY=of-a-test AWS_EC2_METADATA_DISABLED=true\n"
STORAGE = f"s3://bucket/kept?endpoint_override={NETWORK}{LAPTOP}:{PORT}&scheme=http"
QUOTED = f"'storage={STORAGE}'"  # for the shell of the head; ray job submit quotes it again for the one of the job
TINY = ["preset=tiny", "model.name=dih_nm", "model.width=0.1", "data.val_fraction=0.3", "train.batch_size=4"]
SPACE = """\
metric: val/mse
trials: 4
scheduler: {asha: {max_epochs: 4, grace_epochs: 1, reduction_factor: 2}}
base: {preset: tiny, model.name: dih_nm, model.width: 0.1, data.val_fraction: 0.3, train.batch_size: 4}
space:
  optim.lr: {loguniform: [0.0001, 0.01]}
"""


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    if reason := machines.missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("apart")
    with machines.cluster(folder, [1, 2, 3, 4], cpus=1) as cluster, stored(cluster):
        write_small_pack(cluster.shared, train=120)
        (cluster.shared / "own").mkdir()
        (cluster.head.home / ".bashrc").write_text("export RAY_OVERRIDE_RESOURCES='{\"CPU\": 0}'\n")
        for machine in cluster.machines:
            with (machine.home / ".bashrc").open("a") as file:
                file.write(KEYS)
            machine.shell(f"mount -t tmpfs tmpfs {cluster.shared}/own")
        (folder / "job.py").write_text(SLOW_JOB)
        cluster.up()
        for machine in cluster.machines:  # as no launcher would: the job that the tests send instead of cluster/job.py
            (machine.home / "job.py").write_text(SLOW_JOB)
        yield cluster


@contextmanager
def stored(cluster):
    """An S3 server in the machines' network, with a bucket."""
    inside = ["nsenter", "--target", str(cluster.laptop.pid), "--net"]
    words = [str(Path(sys.executable).with_name("moto_server")), "-H", f"{NETWORK}{LAPTOP}", "-p", str(PORT)]
    with (cluster.folder / "moto.log").open("w") as log:
        server = subprocess.Popen([*inside, *words], stdout=log, stderr=log)
    make = f"import faulty_s3; faulty_s3.make_bucket('{NETWORK}{LAPTOP}:{PORT}', 'bucket')"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [*inside, sys.executable, "-c", make]

    def is_made():
        return subprocess.run(command, env=environment, capture_output=True).returncode == 0

    try:
        wait_for(is_made, "a bucket")
        yield
    finally:
        server.terminate()
        server.wait()


def seen_by(machine, path):
    """A file of a machine's own disk, from outside of it."""
    return Path(f"/proc/{machine.first.pid}/root{path}")


class Job:
    """A run by ``ray job submit`` under way."""

    def __init__(self, cluster, name, identifier, *words):
        self.cluster, self.identifier = cluster, identifier
        self.folder = cluster.shared / "own" / name
        places = [f"data.pack={cluster.shared}/pack", f"run.root={self.folder.parent}", f"run.name={name}"]
        often = [f"train.checkpoint_steps={INTERVAL}", f"train.epochs={EPOCHS}", "scale.hang_seconds=20"]
        words = [*TINY, *places, *often, QUOTED, "scale.workers=2", *words]
        job = f"ray job submit --no-wait --submission-id {identifier} -- python job.py train {' '.join(words)}"
        cluster.ray("exec", str(cluster.file), job)

    def log(self):
        return self.cluster.ray("exec", str(self.cluster.file), f"ray job logs {self.identifier}")

    def status(self):
        return job_status(self.cluster, self.identifier)

    def steps(self):
        """By machine at work: how many steps its main rank took."""
        found = {}
        for machine in self.cluster.machines:
            reached = seen_by(machine, self.folder / "steps-reached") if machine.is_up else None
            if reached and machine.processes("RayTrainWorker") and reached.exists():
                found[machine.name] = int(reached.read_text() or 0)
        return found

    def wait_until(self, step):
        wait_for(lambda: max(self.steps().values(), default=0) >= step, f"step {step}", 240)

    def end(self, status="SUCCEEDED"):
        wait_for(lambda: self.status() not in ("PENDING", "RUNNING"), "the end", 400)
        assert self.status() == status, self.log()[-6000:]
        return self.log()


def test_one_machine_dies_the_run_is_stopped_and_it_ends_as_undisturbed(apart):
    Job(apart, "undisturbed", "undisturbed").end()
    head = apart.head
    whole = outcome(seen_by(head, apart.shared / "own" / "undisturbed"))
    assert len(whole[0]) == EPOCHS

    job = Job(apart, "disturbed", "first")
    job.wait_until(30)
    (busy, *_) = [one for one in apart.machines[1:] if one.processes("RayTrainWorker")]
    taken = max(job.steps().values())
    busy.kill()
    wait_for(lambda: "continuing from" in job.log(), "another start", 240)
    said = job.log()
    assert "epoch 1 of" in said, "the lines of workers on other machines"
    assert "died" in said and "without a new one: 3)" in said, "a checkpoint that is only in the storage counts"
    resumed = int(said.split("continuing from ")[1].split()[0].rsplit("-", 1)[1])
    assert taken - resumed <= 2 * INTERVAL + 5, "one interval, and one that was being sent"
    job.wait_until(resumed + 5)
    apart.ray("exec", str(apart.file), "ray job stop first")
    said = job.end("STOPPED")
    (stopped,) = [line for line in said.splitlines() if "stopped at step" in line]
    at = int(stopped.split("stopped at step ")[1].split(",")[0])
    assert not checkpoint.checkpoints(seen_by(head, job.folder)), "it is not on the head"

    said = Job(apart, "disturbed", "second").end()
    assert f"step-{at:06d}" in said.split("continuing from ")[1].splitlines()[0], "where the stop had saved"
    assert outcome(seen_by(head, job.folder)) == whole
    print(f"killed after {taken} steps, on at {resumed}, stopped at {at}: the same bits")

    apart.revive(busy)
    busy.shell(f"mount -t tmpfs tmpfs {apart.shared}/own")
    wait_for(lambda: len(apart.nodes()) == 4, "all machines in Ray", 240)


def test_what_the_user_can_mend_is_said_once(apart):
    said = Job(apart, "diverges", "diverges", "optim.lr=1e30").end("FAILED")
    assert "lower optim.lr" in said and "starting again" not in said
    apart.head.shell(f"cp -r {apart.shared}/pack {apart.shared}/own/pack")  # a path that only the head has
    said = Job(apart, "lacks", "lacks", f"data.pack={apart.shared}/own/pack").end("FAILED")
    assert "has no" in said and "an address such as s3://" in said and "starting again" not in said


def test_a_sweep(apart):
    space = apart.shared / "space.yaml"
    space.write_text(SPACE)
    words = [f"data.pack={apart.shared}/pack", f"run.root={apart.shared}/own", "run.name=sweep", f"'storage={STORAGE}'"]
    started = time.monotonic()
    apart.ray("submit", str(apart.file), "cluster/job.py", "--", "tune", str(space), *words)
    print(f"sweep: {time.monotonic() - started:.1f} s")
    folder = seen_by(apart.head, apart.shared / "own" / "sweep")
    with (folder / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["status"] for row in rows} == {"finished", "stopped early"}
    for row in rows:
        assert len(read_lines(folder / row["folder"] / "metrics.jsonl")) == int(row["epochs"])
    assert len(list(folder.glob("trials/*/checkpoints/*"))) > 0, "the best one's"
