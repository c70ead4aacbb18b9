"""Three machines of one network under cluster/local.yaml: one dies, one is announced to go, one comes back.

The trainings are those of nrh train with steps of a tenth of a second, so that a machine is lost in the midst of one.
"""

import hashlib
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import machines
import pytest
from machines import wait_for
from packs import write_repeated_pack, write_small_pack

LAUNCH = Path(__file__).parents[1] / "launch"
sys.path.insert(0, str(LAUNCH))

from evaluated import content  # noqa: E402

from nrh_dist.engine import checkpoint  # noqa: E402
from nrh_dist.engine.files import read_lines  # noqa: E402
from nrh_dist.engine.notice import ask_to_stop  # noqa: E402
from nrh_dist.engine.shards import DONE  # noqa: E402
from nrh_dist.launch.evaluate import BATCH  # noqa: E402

pytestmark = pytest.mark.cluster
INTERVAL = 20  # steps between two checkpoints
EPOCHS = 12  # of 22 steps: half a minute
IMAGES = 12_000  # that are scored
GRACE = 12  # seconds between the announcement and the end of a machine

# What ray submit sends in the place of cluster/job.py: the same, with the slow worker.
SLOW_JOB = f"""\
import runpy, sys
from pathlib import Path
project = Path.home() / "nrh_dist"
sys.path.insert(0, str(project))
sys.path.append({str(LAUNCH)!r})
import faulty, ray
from nrh_dist.launch import train
ray.cloudpickle.register_pickle_by_value(faulty)
train._worker, train.RESIZE_SECONDS = faulty.slow, 5.0
runpy.run_path(str(project / "cluster" / "job.py"), run_name="__main__")
"""


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    if reason := machines.missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("machines")
    with machines.cluster(folder, [1, 2, 3], cpus=1) as cluster:
        write_small_pack(cluster.shared, train=120)
        write_repeated_pack(write_small_pack(cluster.shared / "scored"), cluster.shared / "many", IMAGES)
        (folder / "job.py").write_text(SLOW_JOB)
        print(f"\nray up: {cluster.up():.1f} s until all three are in Ray")
        yield cluster


@pytest.fixture
def whole(three):
    """The cluster with all machines up and in Ray, each free."""
    back = [machine for machine in three.machines if not machine.is_up]
    started = time.monotonic()
    for machine in back:
        three.revive(machine)
    wait_for(lambda: set(three.nodes()) >= {one.address for one in three.machines}, "all machines in Ray", 240)
    if back:
        print(f"{len(back)} machine(s) back in Ray after {time.monotonic() - started:.1f} s, by themselves")
    return three


@pytest.fixture
def one_down(whole):
    """The cluster with its third machine down: there is room for two workers."""
    whole.machines[2].kill()
    wait_for(lambda: len(whole.nodes()) == 2, "two machines in Ray", 240)
    return whole


class Submitted:
    """``ray submit`` under way."""

    def __init__(self, cluster, name, *words):
        self.cluster, self.folder = cluster, cluster.shared / "runs" / name
        self.log = cluster.folder / f"{name}.log"
        common = ["preset=tiny", "model.name=dih_nm", "model.width=0.1", "data.val_fraction=0.3", "train.batch_size=4"]
        places = [f"data.pack={cluster.shared}/pack", f"run.root={self.folder.parent}", f"run.name={name}"]
        often = f"train.checkpoint_steps={INTERVAL}"
        job = ["ray", "submit", str(cluster.file), str(cluster.folder / "job.py"), "--", "train"]
        with self.log.open("w") as log:
            command = cluster.words(*job, *common, *places, often, "scale.workers=2", "scale.hang_seconds=20", *words)
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def newest_step(self):
        path = checkpoint.newest(self.folder).path
        return checkpoint.read_meta(path)["step"] if path else 0

    def rows(self):
        return read_lines(self.folder / "metrics.jsonl") if (self.folder / "metrics.jsonl").exists() else []

    def wait_for(self, condition, what):
        """As ``wait_for``, but for a run that ended."""

        def looked():
            assert self.process.poll() is None, self.log.read_text()[-4000:]
            return condition()

        return wait_for(looked, what, 240)

    def wait_for_a_checkpoint_inside_an_epoch(self):
        def inside():
            path = checkpoint.newest(self.folder).path
            return path and not checkpoint.read_meta(path)["metrics"]

        self.wait_for(inside, "a checkpoint inside an epoch")

    def steps(self):
        """How many steps it took, over all its starts."""
        reached = self.folder / "steps-reached"
        return int(reached.read_text() or 0) if reached.exists() else 0

    def wait_for_the_midst_of_an_epoch(self):
        """Returns the number of steps by then: two seconds of steps and more from the end of an epoch."""
        self.wait_for(lambda: self.rows() and 2 <= self.steps() % self.rows()[0]["step"] <= 8, "the midst of an epoch")
        return self.steps()

    def end(self, code=0):
        """What it said, when it has ended with ``code``."""
        assert self.process.wait(timeout=400) == code, self.log.read_text()[-6000:]
        return self.log.read_text()

    def at_work(self):
        """The machines beside the head that train."""
        busy = [one for one in self.cluster.machines[1:] if one.is_up and one.processes("RayTrainWorker")]
        assert busy, "nobody trains"
        return busy

    def resumed_at(self, said):
        return [int(line.rsplit("step-", 1)[1].split()[0]) for line in said.splitlines() if "continuing from" in line]


@contextmanager
def submitted(cluster, name, *words):
    run = Submitted(cluster, name, *words)
    try:
        yield run
    finally:
        run.process.kill()
        run.process.wait()


TIMES = ("images_per_s", "time_s")


def outcome(folder):
    """What must not depend on what went wrong: all rows but their times, and the sha256 of the last weights."""
    rows = [
        {key: value for key, value in row.items() if key not in TIMES} for row in read_lines(folder / "metrics.jsonl")
    ]
    weights = checkpoint.newest(folder).path / checkpoint.WEIGHTS
    return rows, hashlib.sha256(weights.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def undisturbed(three):
    started = time.monotonic()
    with submitted(three, "undisturbed", f"train.epochs={EPOCHS}") as run:
        run.end()
    print(f"undisturbed: {time.monotonic() - started:.1f} s")
    rows, weights = outcome(run.folder)
    assert [row["world_size"] for row in rows] == [2] * EPOCHS
    return rows, weights


def test_a_machine_dies_in_the_midst_of_an_epoch(whole, undisturbed):
    """All goes on, on the third machine, from a checkpoint that is not older than one interval."""
    with submitted(whole, "killed", f"train.epochs={EPOCHS}") as run:
        run.wait_for_the_midst_of_an_epoch()
        seen, died = run.newest_step(), time.monotonic()
        run.at_work()[0].kill()
        run.wait_for(lambda: run.newest_step() > seen, "a checkpoint after the restart")
        seconds = time.monotonic() - died
        said = run.end()
    (resumed,) = run.resumed_at(said)
    taken = int((run.folder / "steps-before").read_text())
    lost = taken - resumed
    assert taken % run.rows()[0]["step"], "in the midst of an epoch"
    print(f"killed: {lost} steps lost, {seconds:.1f} s until the next checkpoint")
    assert "died" in said and "starting again" in said
    assert seen <= resumed and 0 <= lost <= INTERVAL
    assert outcome(run.folder) == undisturbed


def test_from_two_workers_to_one_to_two(one_down):
    """When another machine dies there is room for one worker, until that one is back."""
    with submitted(one_down, "elastic", "train.epochs=1000", "scale.min_workers=1") as run:
        run.wait_for(lambda: run.rows() and run.rows()[-1]["world_size"] == 2, "an epoch of two workers")
        (machine,) = run.at_work()
        at_step = run.wait_for_the_midst_of_an_epoch()
        seen, started = len(run.rows()), time.monotonic()
        machine.kill()
        assert at_step % run.rows()[0]["step"], "in the midst of an epoch"
        run.wait_for(lambda: len(run.rows()) > seen and run.rows()[-1]["world_size"] == 1, "an epoch of one worker")
        print(f"from two to one: {time.monotonic() - started:.1f} s until an epoch of one worker")
        started = time.monotonic()
        one_down.revive(machine)
        run.wait_for(lambda: run.rows()[-1]["world_size"] == 2, "an epoch of two workers again")
        print(f"from one to two: {time.monotonic() - started:.1f} s from power on until an epoch of two workers")
        ask_to_stop(run.folder)
        said = run.end(code=1)
    print(f"continued at steps {run.resumed_at(said)}")
    assert "stopped at step" in said
    rows = run.rows()
    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
    sizes = [row["world_size"] for row in rows]
    assert [size for place, size in enumerate(sizes) if sizes[place - 1 : place] != [size]] == [2, 1, 2]
    assert [row["step"] for row in rows] == [row["epoch"] * rows[0]["step"] for row in rows], (
        "each sample once an epoch"
    )


def test_the_end_of_a_machine_is_announced(whole, undisturbed):
    """All leave it with a checkpoint at once, and lose nothing."""
    with submitted(whole, "drained", f"train.epochs={EPOCHS}", "train.checkpoint_steps=100000") as run:
        run.wait_for(run.rows, "an epoch")
        (machine, *_) = run.at_work()
        node = whole.nodes()[machine.address]
        announced = f"--node-id {node} --reason DRAIN_NODE_REASON_PREEMPTION --reason-message test"
        whole.head.shell(
            f"ray drain-node --address {whole.head.address}:6379 {announced} --deadline-remaining-seconds {GRACE}"
        )
        started = time.monotonic()
        run.wait_for_a_checkpoint_inside_an_epoch()
        saved = time.monotonic() - started
        time.sleep(max(0.0, GRACE - saved))
        machine.kill()
        said = run.end()
    resumed = run.resumed_at(said)
    lost = int((run.folder / "steps-before").read_text()) - resumed[-1]
    print(
        f"drained: the first checkpoint {saved:.1f} s after the announcement, {lost} steps lost, continued at {resumed}"
    )
    assert 0 <= lost <= 5
    assert outcome(run.folder) == undisturbed


def test_an_evaluation_outlives_a_machine(whole, undisturbed):
    """It ends with the files of one that nothing happened to, to the byte."""
    cluster, job = whole, str(machines.ROOT / "cluster" / "job.py")
    words = ["evaluate", f"{cluster.shared}/runs/undisturbed", f"{cluster.shared}/runs/killed"]
    words += ["--data", f"{cluster.shared}/many"]
    cluster.ray("submit", str(cluster.file), job, "--", *words, "--out", f"{cluster.shared}/one")
    log = cluster.shared / ".two.partial" / DONE
    command = cluster.words(
        "ray", "submit", str(cluster.file), job, "--", *words, "--out", f"{cluster.shared}/two", "--actors", "2"
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        wait_for(lambda: log.exists() and log.read_text().count("\n") >= 4, "four scored batches")
        busy = wait_for(
            lambda: [one for one in cluster.machines[1:] if one.processes("ScoringActor")], "an actor beside the head"
        )
        busy[0].kill()
        done = log.read_text().count("\n")
        said, _ = process.communicate(timeout=300)
    print(f"evaluation: a machine of an actor died after {done} of {IMAGES // BATCH} batches")
    assert process.returncode == 0 and "an actor died" in said, said
    assert done < IMAGES // BATCH
    assert content(cluster.shared / "two") == content(cluster.shared / "one")


def test_the_doctor_finds_nothing_and_names_the_machine_that_sees_another_folder(whole):
    place = whole.shared / "doctor"
    place.mkdir()
    words = ["submit", str(whole.file), "cluster/job.py", "--", "doctor", "--cluster", "auto", "--storage", str(place)]
    said = whole.ray(*words)
    assert "3 machine(s)" in said and f"all read and write {place}" in said and "problem" not in said, said
    other = whole.machines[2]
    other.shell(f"mount -t tmpfs tmpfs {place}")
    try:
        said = whole.ray(*words, code=1)
    finally:
        other.shell(f"umount {place}")
    (line,) = [line for line in said.splitlines() if line.startswith("problem")]
    assert other.address in line and "is another folder there" in line, said


def test_every_machine_asks_for_the_token(whole):
    script = "import ray; ray.init(address='{}:6379', logging_level='ERROR')"
    for machine in whole.machines:
        assert machine.shell("stat -c %a ~/.ray/auth_token").strip() == "600"
        command = f'HOME=/nonexistent RAY_AUTH_MODE=disabled timeout 60 python -c "{script.format(whole.head.address)}"'
        with pytest.raises(AssertionError, match=r"(?i)auth|token"):
            machine.shell(command)
