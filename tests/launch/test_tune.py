import csv
import re
import time
from contextlib import suppress
from unittest.mock import Mock

import psutil
import pytest
from packs import write_small_pack
from test_faults import meanwhile, wait_for

from nrh_dist import config
from nrh_dist.engine import checkpoint, select
from nrh_dist.engine.files import read_lines
from nrh_dist.errors import UserError
from nrh_dist.launch import session, trials
from nrh_dist.launch.progress import Progress
from nrh_dist.launch.tune import HEAD, HELPER, _stopper, room_for, tune
from nrh_dist.location import cache_dir
from nrh_dist.workflows import plan

SPACE = """\
metric: val/mse
trials: 4
scheduler: {asha: {max_epochs: 3, grace_epochs: 1, reduction_factor: 2}}
base: {preset: tiny, model.name: ptc_att_dih, model.width: 0.1, data.val_fraction: 0.3}
space:
  model.fusion_width: {choice: [4, 8]}
  model.freeze: {choice: [encoder, all]}
  optim.lr: {loguniform: [0.0001, 0.01]}
"""


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_small_pack(tmp_path_factory.mktemp("tune"), train=16)


def space_file(folder, text=SPACE):
    path = folder / "space.yaml"
    path.write_text(text)
    return path


def table(folder):
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def kept_features():
    return {path.name for path in cache_dir().glob("features-*")}


def trained_epochs(folder):
    """How many epochs were trained in a sweep in all, counting those that were trained again."""
    logs = [log.read_text() for log in folder.glob("trials/*/train.log")]
    return sum(len(re.findall(r"^epoch \d+ of \d+:", log, re.M)) for log in logs)


@pytest.fixture
def most_epochs(monkeypatch):
    """What the dry run says of a sweep, which is not measured here."""
    monkeypatch.setattr(plan, "measured_costs", lambda *_: [plan.Cost(1.0, 1.0, 1e9, "cpu")])

    def told(path, words):
        said = []
        plan.describe(path, words, said.append)
        (line,) = [line for line in said if line.startswith("epochs: ")]
        return int(re.match(r"epochs: at most (\d+), ", line)[1])

    return told


def test_random_search_with_asha(ray_session, tmp_path, pack, most_epochs):
    kept = kept_features()
    words = [f"data.pack={pack.root}", f"run.root={tmp_path}", "run.name=sweep"]
    said = []
    folder = tune(space_file(tmp_path), words, False, said.append)
    assert trained_epochs(folder) <= most_epochs(space_file(tmp_path), words) == 12
    rows = table(folder)
    assert [row["trial"] for row in rows] == ["t0000", "t0001", "t0002", "t0003"]
    assert set(rows[0]) == {
        *("trial", "model.fusion_width", "model.freeze", "optim.lr", "val/mse", "epochs", "status", "reason", "folder")
    }
    assert {row["status"] for row in rows} <= {"finished", "stopped early"}
    assert len(kept_features() - kept) == 1, "all trials share the features of their frozen encoder"
    assert any(row["status"] == "finished" for row in rows)
    best = select.read_best(folder)
    assert best["value"] == pytest.approx(min(float(row["val/mse"]) for row in rows))
    assert checkpoint.fault(select.resolve(folder)) is None
    assert checkpoint.read_meta(select.resolve(folder))["model"]["name"] == "ptc_att_dih"
    again = []
    tune(space_file(tmp_path), words, False, again.append)
    assert "is finished" in again[-1]
    with pytest.raises(UserError, match="another sweep"):
        tune(space_file(tmp_path, SPACE.replace("trials: 4", "trials: 5")), words, False, print)

    # As after a kill: resumed trials replay what they reached, and the result is the same.
    (folder / "best.json").unlink()
    with pytest.raises(UserError, match="--resume"):
        tune(space_file(tmp_path), words, False, print)
    tune(space_file(tmp_path), words, True, print)
    assert [row["optim.lr"] for row in table(folder)] == [row["optim.lr"] for row in rows]
    assert select.read_best(folder)["value"] <= best["value"]


def test_optuna_and_a_trial_that_fails(ray_session, tmp_path, pack, monkeypatch):
    """A learning rate that diverges is recorded with its reason and does not stop the sweep."""
    text = SPACE.replace("trials: 4", "trials: 3\nsearch: optuna").replace(
        "loguniform: [0.0001, 0.01]", "choice: [0.001, 1.0e+30]"
    )
    words = [f"data.pack={pack.root}", f"run.root={tmp_path}", "run.name=sweep", "seed=1", "scale.max_failures=0"]
    rows = table(tune(space_file(tmp_path, text), words, False, print))
    assert len(rows) == 3
    for row in rows:
        diverging = float(row["optim.lr"]) > 1
        assert (row["status"] == "failed") == diverging
        assert ("lower optim.lr" in row["reason"]) == diverging

    # --resume tries the failed ones again; stopped on the way, the sweep is not finished.
    tries = []

    def interrupted(*_):
        tries.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr("nrh_dist.launch.tune._run", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            tune(space_file(tmp_path, text), words, True, print)
    assert len(tries) == 2


def rows_of(folder):
    return read_lines(folder / "metrics.jsonl")


@pytest.mark.parametrize(
    ("schedule", "count", "workers"),
    [
        ("hyperband: {max_epochs: 4, reduction_factor: 2}", 7, 1),
        ("median: {max_epochs: 4, min_trials: 1}", 4, 1),
        pytest.param("hyperband: {max_epochs: 4, reduction_factor: 2}", 7, 2, marks=pytest.mark.slow),
    ],
)
def test_other_schedulers(ray_session, tmp_path, pack, most_epochs, schedule, count, workers):
    """HyperBand pauses trials on the way: each goes on where it was, and no epoch is trained twice."""
    text = SPACE.replace("asha: {max_epochs: 3, grace_epochs: 1, reduction_factor: 2}", schedule)
    text = text.replace("trials: 4", f"trials: {count}").replace("ptc_att_dih", "dih_nm")
    text = "".join(line for line in text.splitlines(True) if "fusion" not in line and "freeze" not in line)
    words = [f"data.pack={pack.root}", f"run.root={tmp_path}", "run.name=sweep", f"scale.workers={workers}"]
    said = []
    rows = table(tune(space_file(tmp_path, text), words, False, said.append))
    assert trained_epochs(tmp_path / "sweep") <= most_epochs(space_file(tmp_path, text), words) == 4 * count
    assert {row["status"] for row in rows} == {"finished", "stopped early"}
    told = [line.split(",")[0] for line in said if ": epoch " in line]
    assert len(told) == len(set(told)) == sum(int(row["epochs"]) for row in rows)
    for row in rows:
        epochs = [one["epoch"] for one in rows_of(tmp_path / "sweep" / row["folder"])]
        assert epochs == list(range(1, int(row["epochs"]) + 1))
        logged = (tmp_path / "sweep" / row["folder"] / "train.log").read_text()
        assert all(logged.count(f"epoch {epoch} of 4:") == 1 for epoch in epochs)
    assert trained_epochs(tmp_path / "sweep") == len(told), "none that Tune does not know of"


POPULATION = """\
metric: val/mse
trials: 4
scheduler: {pbt: {max_epochs: 6, interval_epochs: 2, share: 0.5}}
base: {preset: tiny, model.name: dih_nm, model.width: 0.1, data.val_fraction: 0.3}
space:
  optim.lr: {loguniform: [0.00001, 0.01]}
"""


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_population_based_training(ray_session, tmp_path, pack, most_epochs, workers):
    words = [f"data.pack={pack.root}", f"run.root={tmp_path}", "run.name=sweep", f"scale.workers={workers}"]
    folder = tune(space_file(tmp_path, POPULATION), words, False, print)
    rows = table(folder)
    assert [row["trial"].split("-")[0] for row in rows] == ["t0000", "t0001", "t0002", "t0003"]
    assert {(row["status"], row["epochs"]) for row in rows} == {("finished", "6")}
    later = [one for one in sorted((folder / "trials").iterdir()) if "-" in one.name]
    assert len(later) == 4, "two exchanges of two trials"
    for one in (folder / "trials").iterdir():
        told, own = trials.noted(one), rows_of(one)
        if origin := told["from"]:
            assert own[: origin["epoch"]] == rows_of(folder / "trials" / origin["trial"])[: origin["epoch"]]
            assert own[-1]["lr"] == told["assignment"]["optim.lr"] != own[0]["lr"]
        assert [row["epoch"] for row in own] == list(range(1, len(own) + 1))
    most = most_epochs(space_file(tmp_path, POPULATION), words)
    assert trained_epochs(folder) == most == 24, "as many epochs as without exchange"
    best = select.read_best(folder)
    assert best["value"] == min(row["val/mse"] for one in (folder / "trials").iterdir() for row in rows_of(one))


@pytest.mark.slow
def test_a_population_goes_on_without_those_that_failed(ray_session, tmp_path, pack):
    """The others wait for them at the exchange, and nobody would call them."""
    text = POPULATION.replace("loguniform: [0.00001, 0.01]", "choice: [0.001, 0.002, 1.0e+30]")
    words = [f"data.pack={pack.root}", f"run.root={tmp_path}", "run.name=sweep", "scale.max_failures=0", "seed=1"]
    rows = table(tune(space_file(tmp_path, text), words, False, print))
    assert {row["status"] for row in rows} == {"finished", "failed"}
    assert {row["epochs"] for row in rows if row["status"] == "finished"} == {"6"}


TWINS = """\
metric: val/mse
trials: 4
scheduler: {none: {max_epochs: 2}}
base: {preset: tiny, model.name: ptc_att_dih, model.width: 0.1, model.freeze: none, data.val_fraction: 0.3}
space:
  optim.lr: {choice: [0.001]}
"""


def test_a_process_that_has_trained_another_trial_before_gives_the_same(
    ray_session, tmp_path, pack, monkeypatch, most_epochs
):
    """Two processes for four equal trials: rows to the bit, dropout included."""
    processes = {}

    def on_result(progress, every, trial, result, told=Progress.on_result):
        processes[trials.name_of(trial)] = result["pid"]
        told(progress, every, trial, result)

    monkeypatch.setattr(Progress, "on_result", on_result)
    words = [f"data.pack={pack.root}", f"run.root={tmp_path}", "run.name=sweep"]
    folder = tune(space_file(tmp_path, TWINS), words, False, print)
    assert len(processes) == 4 and len({*processes.values()}) == 2
    first, *others = [timeless(folder / row["folder"]) for row in table(folder)]
    assert len(first) == 2 and others == [first] * 3
    assert trained_epochs(folder) == most_epochs(space_file(tmp_path, TWINS), words)


def timeless(trial):
    """The rows of a trial without what the clock says."""
    return [{key: row[key] for key in row if key not in ("images_per_s", "time_s")} for row in rows_of(trial)]


@pytest.mark.parametrize("restarts", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_trial_whose_process_is_killed(ray_session, tmp_path, pack, restarts):
    """Where it may be started again it goes on; else it has failed, which is told at once, and the others finish."""
    text = TWINS.replace("trials: 4", "trials: 3").replace("max_epochs: 2", "max_epochs: 30")
    words = [f"data.pack={pack.root}", f"run.root={tmp_path}", "run.name=sweep", f"scale.max_failures={restarts}"]
    first = tmp_path / "sweep" / "trials" / "t0000"

    def kill():
        wait_for(lambda: len(rows_of(first)) >= 2, "two epochs of a trial")
        (process,) = processes_of(first)
        process.kill()

    said = []
    with meanwhile(kill):
        rows = table(tune(space_file(tmp_path, text), words, False, said.append))
    log = (first / "train.log").read_text()
    if restarts:
        assert {(row["status"], row["epochs"]) for row in rows} == {("finished", "30")}
        assert "continuing from" in log and timeless(first) == timeless(first.with_name("t0001"))
        return
    assert [row["status"] for row in rows] == ["failed", "finished", "finished"]
    assert "died" in rows[0]["reason"] and "\n" not in rows[0]["reason"] and "continuing from" not in log
    told = said.index(f"t0000 failed ({rows[0]['reason']}); the sweep goes on")
    assert any(line.startswith("t0002: epoch") for line in said[told:]), "at once, not at the end of the sweep"


def processes_of(trial):
    """The processes that write the log of a trial."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if any(file.path == str(trial / "train.log") for file in process.open_files()):
                found.append(process)
    return found


def test_several_objectives(ray_session, tmp_path, pack):
    text = SPACE.replace("metric: val/mse", "metric: [val/mse, cost/parameters]\nsearch: optuna")
    words = [f"data.pack={pack.root}", f"run.root={tmp_path}", "run.name=sweep"]
    rows = table(tune(space_file(tmp_path, text), words, False, print))
    costs = {(row["model.fusion_width"], float(row["cost/parameters"])) for row in rows}
    assert len(costs) == len({width for width, _ in costs})
    assert select.read_best(tmp_path / "sweep")["value"] == min(float(row["val/mse"]) for row in rows)


@pytest.mark.slow
def test_workers_of_a_trial_on_one_machine(ray_session, tmp_path, pack):
    """scale.workers above 1: each trial is a DDP run of its own; a diverging one is refused by its workers."""
    text = SPACE.replace("loguniform: [0.0001, 0.01]", "choice: [0.001, 1.0e+30]").replace("trials: 4", "trials: 3")
    words = [f"data.pack={pack.root}", f"run.root={tmp_path}", "run.name=sweep", "scale.workers=2", "seed=1"]
    rows = table(tune(space_file(tmp_path, text), [*words, "scale.max_failures=0"], False, print))
    assert {row["status"] for row in rows} > {"failed"}
    for row in rows:
        assert ("lower optim.lr" in row["reason"]) == (float(row["optim.lr"]) > 1) == (row["status"] == "failed")
        for told in rows_of(tmp_path / "sweep" / row["folder"]):
            assert told["world_size"] == 2


@pytest.mark.parametrize(
    ("machines", "words", "need", "concurrent", "is_together"),
    [
        ([{"CPU": 4}], [], {"CPU": 1}, 4, True),
        ([{"CPU": 4}], ["scale.workers=2"], {"CPU": 4}, 1, True),
        ([{"CPU": 16, "GPU": 2}], [], {"CPU": 1, "GPU": 1}, 2, True),
        ([{"CPU": 16, "GPU": 2}], ["scale.gpus_per_worker=0.25"], {"CPU": 1, "GPU": 0.25}, 8, True),
        ([{"CPU": 16, "GPU": 8}], ["scale.workers=4"], {"CPU": 4, "GPU": 4}, 2, True),
        ([{"CPU": 8, "GPU": 1}] * 4, ["scale.workers=2"], {HEAD: 0.499}, 2, False),
        ([{"CPU": 8, "GPU": 1}] * 2, ["scale.workers=2"], {HEAD: 0.999}, 1, False),
        ([{"CPU": 8, "GPU": 1}] * 32, ["scale.workers=2"], {HEAD: 0.0615}, 16, False),
    ],
)
def test_no_more_trials_start_than_there_is_room_for(monkeypatch, machines, words, need, concurrent, is_together):
    """Two processes of trials that hold all CPUs, while their workers wait for some, would wait for ever."""
    import ray

    total = {name: sum(one.get(name, 0) for one in machines) for name in ("CPU", "GPU")}
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(session, "resources", lambda: total)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": one} for one in machines])
    room = room_for(config.load(None, words), print)
    assert room.need == pytest.approx(need)
    assert (room.concurrent, room.together is not None) == (concurrent, is_together)
    if not is_together:  # their helpers find room on the head, one more trial does not
        taken = round(1e4 * concurrent * (room.need[HEAD] + HELPER))
        assert taken <= 10_000 < taken + round(1e4 * room.need[HEAD])


@pytest.mark.slow
def test_trials_on_ray_train_one_at_a_time(ray_session, monkeypatch, tmp_path, pack):
    """There is room for Ray Train's helper, and what those reserved that are stopped early is free for the next."""
    monkeypatch.setattr(session, "one_machine_has", lambda *_: False)
    text = SPACE.replace("trials: 4", "search: grid").replace(
        "loguniform: [0.0001, 0.01]", "choice: [0.003, 0.0000001, 0.0000001]"
    )
    text = "".join(line for line in text.splitlines(True) if "fusion" not in line and "freeze" not in line)
    words = [f"data.pack={pack.root}", f"run.root={tmp_path}", "run.name=sweep", "scale.workers=2"]
    rows = table(tune(space_file(tmp_path, text), words, False, print))
    assert [(row["status"], row["epochs"]) for row in rows] == [("finished", "3"), *[("stopped early", "1")] * 2]
    assert trained_epochs(tmp_path / "sweep") == 5, "none after the one that Tune stopped them at"


def test_what_stopped_trials_reserved_is_given_back_again_and_again(monkeypatch):
    """While a sweep waits for it no other trial starts, which would do it."""
    freed = []
    monkeypatch.setattr(session, "free_orphans", lambda: freed.append(1))
    monkeypatch.setattr("nrh_dist.launch.tune.FREE_SECONDS", 0.05)
    progress = Mock(is_stopping=False)
    for is_on_ray_train in (False, True):
        stopper = _stopper(progress, is_on_ray_train)
        for _ in range(3):
            assert not stopper.stop_all() and not stopper.stop_all()
            time.sleep(0.06)
        assert len(freed) == 3 * is_on_ray_train


def test_trials_keep_their_workers(tmp_path, pack):
    words = [f"data.pack={pack.root}", f"run.root={tmp_path}", "scale.workers=2", "scale.min_workers=1"]
    with pytest.raises(UserError, match=r"scale\.min_workers=1: the trials of a sweep keep their workers"):
        tune(space_file(tmp_path, SPACE), words, False, print)


def test_resume_without_a_sweep(tmp_path, pack):
    with pytest.raises(UserError, match="no sweep to resume"):
        tune(space_file(tmp_path), [f"data.pack={pack.root}", f"run.root={tmp_path}"], True, print)
