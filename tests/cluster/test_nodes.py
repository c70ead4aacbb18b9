"""A cluster of four nodes on this machine: one is killed, another is announced to go, both in mid-epoch."""

import csv
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from packs import write_small_pack

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "launch"), str(TESTS / "engine")]

import faulty  # noqa: E402
import recorded  # noqa: E402
from test_faults import meanwhile, newest_step, processes, require_whole, wait_for  # noqa: E402
from test_train import configured  # noqa: E402

from nrh_dist import config  # noqa: E402
from nrh_dist.config import load  # noqa: E402
from nrh_dist.engine import checkpoint  # noqa: E402
from nrh_dist.engine.files import read_lines  # noqa: E402
from nrh_dist.engine.run import split_rows  # noqa: E402
from nrh_dist.launch import train  # noqa: E402
from nrh_dist.launch.tune import room_for, tune  # noqa: E402

pytestmark = pytest.mark.cluster
GRACE = 25  # seconds between the announcement and the end of a node; Ray looks for announcements every 5


@pytest.fixture
def nodes(monkeypatch):
    """A head without CPUs and three nodes of one CPU each; the tests' own Ray must not run."""
    import ray
    from ray.cluster_utils import Cluster

    assert not ray.is_initialized()
    with socket.create_server(("127.0.0.1", 0)) as free:
        head = {"num_cpus": 0, "include_dashboard": True, "dashboard_port": free.getsockname()[1]}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(3)]
        cluster.wait_for_nodes()
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        yield cluster, nodes
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_small_pack(tmp_path_factory.mktemp("nodes"), train=24)


def at_work(nodes):
    """The nodes whose raylet has started a train worker."""
    raylets = {psutil.Process(worker).ppid() for worker in processes("RayTrainWorker")}
    return [node for node in nodes if any(one.process.pid in raylets for one in node.all_processes["raylet"])]


def test_a_killed_node_costs_one_checkpoint_interval(nodes, pack, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "_worker", faulty.slow)
    cluster, members = nodes
    words = ["model.name=dih_nm", "train.epochs=4", "train.batch_size=2", "train.checkpoint_steps=5", "scale.workers=2"]
    one = configured(tmp_path, pack, *words, "scale.hang_seconds=20")
    folder, seen = config.run_dir(one), {}
    steps = len(split_rows(pack, one)[0]) // 2  # of an epoch

    def kill():
        wait_for(lambda: newest_step(folder) > 0 and newest_step(folder) % steps, "a checkpoint in mid-epoch")
        seen["step"] = newest_step(folder)
        cluster.remove_node(at_work(members)[0], allow_graceful=False)

    said = []
    with meanwhile(kill):
        train.train(one, said.append)
    assert any("died" in line and "starting again" in line for line in said), said
    (resumed,) = [line for line in said if line.startswith("continuing from ")]
    lost = int((folder / "steps-before").read_text()) - int(resumed.split("step-")[1])
    print(seen, resumed, "steps lost", lost)
    assert int(resumed.split("step-")[1]) >= seen["step"] and 0 <= lost <= 5
    require_whole(folder, 4, said)
    # The same training by two processes that nothing happens to, without Ray.
    assert recorded.train(tmp_path / "whole" / "r", pack.root, words, world=2) == [0, 0]
    assert untimed(folder) == untimed(tmp_path / "whole" / "r") and weights(folder) == weights(tmp_path / "whole" / "r")


def test_an_announced_preemption_costs_no_step(nodes, tmp_path, monkeypatch):
    """No checkpoint is due inside these epochs: any that is there was written because of the announcement."""
    monkeypatch.setattr(train, "_worker", faulty.slow)
    cluster, members = nodes
    pack = write_small_pack(tmp_path, train=160)
    words = ["train.epochs=8", "data.val_fraction=0.3", "train.batch_size=2", "train.checkpoint_steps=100000"]
    one = configured(tmp_path, pack, *words, "scale.workers=2")
    folder, seen = config.run_dir(one), {}

    def announce():
        wait_for(lambda: checkpoint.checkpoints(folder), "a checkpoint")
        drain = ["drain-node", "--address", cluster.address, "--node-id", at_work(members)[0].node_id]
        reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "test"]
        until = ["--deadline-remaining-seconds", str(GRACE)]
        ray = Path(sys.executable).with_name("ray")
        subprocess.run([ray, *drain, *reason, *until], check=True, timeout=60, capture_output=True)
        announced = time.monotonic()
        wait_for(lambda: is_inside_an_epoch(folder), "a checkpoint in mid-epoch")
        seen["saved"] = time.monotonic() - announced

    said = []
    with meanwhile(announce):
        train.train(one, said.append)
    (resumed,) = [line for line in said if line.startswith("continuing from ")]
    lost = int((folder / "steps-before").read_text()) - int(resumed.split("step-")[1])
    print(seen, resumed, "steps lost", lost)
    assert seen["saved"] < 15  # Ray looks every 5 s, Notices every second
    assert 0 <= lost <= 5
    assert any("before a machine of this run goes; starting again" in line for line in said), said
    assert not any("died" in line for line in said), said
    require_whole(folder, 8, said)


def untimed(folder):
    rows = read_lines(folder / "metrics.jsonl")
    return [{key: row[key] for key in row if key not in ("images_per_s", "time_s")} for row in rows]


def weights(folder):
    return (checkpoint.newest(folder).path / checkpoint.WEIGHTS).read_bytes()


def is_inside_an_epoch(folder):
    path = checkpoint.newest(folder).path
    return path and not checkpoint.read_meta(path)["metrics"]


SPACE = """\
metric: val/mse
trials: 3
scheduler: {SCHEDULER}
base: {preset: tiny, model.name: dih_nm, model.width: 0.1, data.val_fraction: 0.3, train.batch_size: 4}
space:
  optim.lr: {loguniform: [0.0001, 0.01]}
"""


def swept(tmp_path, pack, schedule, *words):
    path = tmp_path / "space.yaml"
    path.write_text(SPACE.replace("SCHEDULER", schedule))
    folder = tune(path, [f"data.pack={pack.root}", f"run.root={tmp_path}", "run.name=sweep", *words], False, print)
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_trials_whose_workers_no_machine_holds_are_ray_trains(nodes, pack, tmp_path):
    """An early-stopped one leaves nothing reserved that would keep the next one waiting."""
    rows = swept(tmp_path, pack, "asha: {max_epochs: 3, grace_epochs: 1, reduction_factor: 2}", "scale.workers=2")
    assert {row["status"] for row in rows} == {"finished", "stopped early"}
    for row in rows:
        first = read_lines(tmp_path / "sweep" / row["folder"] / "metrics.jsonl")[0]
        assert first["world_size"] == 2
    config = load(tmp_path / "sweep" / rows[0]["folder"] / "config.yaml")
    assert room_for(config, print).together is None


def test_a_sweep_outlives_a_node(nodes, pack, tmp_path):
    """Its trial goes on elsewhere, from its checkpoint, to the values of a sweep that nothing happened to."""
    cluster, members = nodes
    folder, schedule = tmp_path / "sweep" / "trials", "none: {max_epochs: 60}"

    def kill():
        wait_for(lambda: len(list(folder.glob("*/metrics.jsonl"))) == 3, "an epoch of each trial")
        cluster.remove_node(members[0], allow_graceful=False)

    with meanwhile(kill):
        rows = swept(tmp_path, pack, schedule)
    assert {(row["status"], row["epochs"]) for row in rows} == {("finished", "60")}
    logs = [path.read_text() for path in folder.glob("*/train.log")]
    assert sum("continuing from" in log for log in logs) == 1, "the trial of the lost node, from its checkpoint"
    undisturbed = swept(tmp_path, pack, schedule, "run.name=undisturbed")
    assert [timeless(tmp_path / "undisturbed", row) for row in undisturbed] == [
        timeless(tmp_path / "sweep", row) for row in rows
    ]


def timeless(sweep, row):
    """All that a trial is and reached, but for what the clock says."""
    lines = read_lines(sweep / row["folder"] / "metrics.jsonl")
    return row, [{key: line[key] for key in line if key not in ("images_per_s", "time_s")} for line in lines]
