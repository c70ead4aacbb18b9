"""Sweeps with a Ray of their own that are killed and stopped. Minutes."""

import csv
import os
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import pytest
from packs import write_small_pack

from nrh_dist import config
from nrh_dist.engine import checkpoint, rundir
from nrh_dist.engine.files import read_lines
from nrh_dist.launch import trials

pytestmark = pytest.mark.slow
DEADLINE = 240.0  # seconds
SPACE = """\
metric: val/mse
trials: 12
scheduler: {none: {max_epochs: 6}}
base: {preset: tiny, model.name: MODEL, model.width: 0.1, data.val_fraction: 0.3, train.batch_size: 4}
space:
  model.fusion_width: {choice: [4, 8]}
  model.freeze: {choice: [encoder, none, "encoder_until:10"]}
  optim.lr: {loguniform: [0.0001, 0.01]}
"""
MODELS = {"ptc_att_dih": "ptc_att_dih", "gated": "gated, loss.gate: 1.0, loss.harm: 1.0"}
NRH = ("-m", "nrh_dist")
# As where no machine has room for all workers of a trial.
ON_RAY_TRAIN = (
    "-c",
    "from nrh_dist import cli; from nrh_dist.launch import session\n"
    "session.one_machine_has = lambda *_: False; cli.main()",
)
# Who trains a trial: program, workers, trials of the sweep. Ray Train takes 20 s to start each.
BACKENDS = {"its own process": (NRH, 1, 12), "processes beside it": (NRH, 2, 3), "Ray Train": (ON_RAY_TRAIN, 2, 3)}


class Killed(NamedTuple):
    """A sweep when it was killed, by name of the trial: the file of rows of those that were finished, and the number
    of rows of the others that had begun."""

    finished: dict[str, bytes]
    running: dict[str, int]


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_small_pack(tmp_path_factory.mktemp("sweeps"), train=24)


def command(tmp_path, pack, text, name, *words, program=NRH):
    path = tmp_path / "space.yaml"
    path.write_text(text)
    common = [f"data.pack={pack.root}", f"run.root={tmp_path}", f"run.name={name}", *words]
    return [sys.executable, *program, "tune", str(path), *common]


def table(folder):
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def epochs(folder):
    return sum(len(read_lines(path)) for path in folder.glob("trials/*/metrics.jsonl"))


def wait_for_epochs(process, folder, count):
    deadline = time.monotonic() + DEADLINE
    while epochs(folder) < count:
        assert process.poll() is None, "the sweep ended before its time"
        assert time.monotonic() < deadline, f"no epoch {count} in time"
        time.sleep(0.1)


def start(words):
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


def killed(words, folder, count):
    process = start(words)
    try:
        wait_for_epochs(process, folder, count)
    finally:
        process.kill()
        process.communicate()
    begun = {path.parent: path.parent / "metrics.jsonl" for path in folder.glob("trials/t*/config.yaml")}
    done = {trial for trial in begun if rundir.is_finished(trial, config.load(trial / "config.yaml"))}
    running = {trial.name: len(read_lines(rows)) for trial, rows in begun.items() if trial not in done}
    return Killed({trial.name: begun[trial].read_bytes() for trial in done}, running)


def finished(words):
    done = subprocess.run(words, capture_output=True, text=True, timeout=4 * DEADLINE)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def reached(folder):
    """Everything that a trial is and reached, but for what the clock says."""
    rows = {}
    for row in table(folder):
        told = trials.noted(folder / row["folder"])
        lines = read_lines(folder / row["folder"] / "metrics.jsonl")
        clean = [{k: v for k, v in line.items() if k not in ("images_per_s", "time_s")} for line in lines]
        rows[row["trial"]] = (told["assignment"], row["status"], clean)
    return rows


def require_continued(folder, kills):
    """What was finished at a kill stayed as it was, and no epoch was trained again that had a row then."""
    logs = {path.name: (path / "train.log").read_text() for path in (folder / "trials").iterdir()}
    times = {name: [log.count(f"epoch {epoch} of 6:") for epoch in range(1, 7)] for name, log in logs.items()}
    for kill in kills:
        for name, rows in kill.finished.items():
            assert (folder / "trials" / name / "metrics.jsonl").read_bytes() == rows, name
        for name, reached in kill.running.items():
            assert max(times[name][:reached], default=0) <= 1, (name, reached, times[name])
    most = 6 * len(logs) + sum(len(kill.running) for kill in kills)
    assert sum(map(sum, times.values())) <= most, times
    assert any("continuing from" in log for log in logs.values())


@pytest.mark.parametrize("model", sorted(MODELS))
@pytest.mark.parametrize("backend", BACKENDS)
def test_killed_twice_and_resumed_is_as_undisturbed(tmp_path, pack, model, backend):
    """SIGKILL of the driver; same configurations and, without early stopping, the same values to the last bit."""
    program, workers, count = BACKENDS[backend]
    text = SPACE.replace("MODEL", MODELS[model]).replace("trials: 12", f"trials: {count}")
    words = command(tmp_path, pack, text, "disturbed", f"scale.workers={workers}", program=program)
    folder = tmp_path / "disturbed"
    kills = [killed(words, folder, 6 * count // 4), killed([*words, "--resume"], folder, 6 * count // 2)]
    finished([*words, "--resume"])
    finished(command(tmp_path, pack, text, "undisturbed", f"scale.workers={workers}", program=program))
    there = reached(tmp_path / "undisturbed")
    assert reached(folder) == there
    assert len(there) == count and {status for _, status, _ in there.values()} == {"finished"}
    require_continued(folder, kills)
    logs = [(folder / "trials" / name / "train.log").read_text() for name in there]
    assert {"train on CPUs" in log for log in logs} == {backend == "Ray Train"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "term"])
def test_a_stop_lets_the_trials_save_and_says_how_to_go_on(tmp_path, pack, number):
    text = SPACE.replace("MODEL", MODELS["ptc_att_dih"]).replace("max_epochs: 6", "max_epochs: 30")
    text = text.replace("trials: 12", "trials: 3")
    words = command(tmp_path, pack, text, "sweep")
    process = start(words)
    wait_for_epochs(process, tmp_path / "sweep", 4)
    running = [path.parent for path in (tmp_path / "sweep").glob("trials/*/metrics.jsonl")]
    before = {path: max((one.name for one in checkpoint.checkpoints(path)), default="") for path in running}
    started = time.monotonic()
    os.killpg(process.pid, number) if number is signal.SIGINT else process.send_signal(number)
    said, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1 and "Traceback" not in said, said
    assert time.monotonic() - started < 60
    last = said.strip().splitlines()[-1]
    assert last.startswith("nrh: stopped, as asked") and last.endswith("--resume"), said
    rows = table(tmp_path / "sweep")
    assert {row["status"] for row in rows} == {"running", "waiting"}
    assert {"index.html", "study.db", "figures"} <= {path.name for path in (tmp_path / "sweep").iterdir()}
    for path in running:
        assert checkpoint.newest(path).path.name > before[path], "saved at the very step"
    said = finished([*words, "--resume"])
    assert {row["epochs"] for row in table(tmp_path / "sweep")} == {"30"}


POPULATION = """\
metric: val/mse
trials: 4
scheduler: {pbt: {max_epochs: 12, interval_epochs: 3, share: 0.5}}
base: {preset: tiny, model.name: dih_nm, model.width: 0.1, data.val_fraction: 0.3, train.batch_size: 4}
space:
  optim.lr: {loguniform: [0.00001, 0.01]}
"""


def test_a_killed_population_goes_on_with_its_members(tmp_path, pack):
    words = command(tmp_path, pack, POPULATION, "sweep")
    folder = tmp_path / "sweep"
    killed(words, folder, 24)
    finished([*words, "--resume"])
    assert {(row["status"], row["epochs"]) for row in table(folder)} == {("finished", "12")}
    trained = 0
    for path in folder.glob("trials/*"):
        origin = trials.noted(path)["from"]
        trained += len(read_lines(path / "metrics.jsonl")) - (origin["epoch"] if origin else 0)
    assert trained <= 48, "the bound of the plan holds"
