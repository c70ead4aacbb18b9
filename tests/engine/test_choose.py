import shutil

import pytest
import torch
from choices import make_evaluation, make_real_run, make_run

from nrh_dist.engine import checkpoint, choose, cost
from nrh_dist.errors import UserError


def said_by(folders, *metrics, pareto=False, out=None):
    said = []
    choose.best(folders, metrics, pareto, out, said.append)
    return said


@pytest.fixture(scope="module")
def two_models(tmp_path_factory):
    """dih_nm, which is cheap, and ptc_dih, which has a lower error."""
    root = tmp_path_factory.mktemp("runs")
    make_real_run(root, "cheap", "dih_nm", **{"val/mse": 15.0, "val/identity_mse": 12.0})
    make_real_run(root, "good", "ptc_dih", **{"val/mse": 10.0, "val/identity_mse": 12.0})
    return root


def test_the_choice_the_reason_and_the_table(tmp_path):
    make_run(tmp_path, "r", [5.0, 1.0])
    make_run(tmp_path, "longer", [1.0])
    best, header, *rows = said_by([tmp_path])
    assert best == (
        f"{tmp_path / 'longer' / 'checkpoints' / 'epoch-0001-step-000010'}  (lowest val/mse of 3 kept checkpoints, "
        "shared by 1 more; ties go to the earlier epoch, then the run's name, then its folder)"
    )
    assert header.split() == ["run", "model", "epoch", "val/mse"]
    assert [row.split() for row in rows] == [["1", "longer", "1", "1"], ["2", "r", "2", "1"], ["3", "r", "1", "5"]]


def test_only_ten_rows_are_shown(tmp_path):
    make_run(tmp_path, "r", list(range(1, 15)))
    assert len(said_by([tmp_path])) == 1 + 1 + 10


def test_evaluations_alone_go_by_mse(tmp_path):
    (path,) = checkpoint.checkpoints(make_run(tmp_path / "runs", "r", [5.0]))
    evaluation = make_evaluation(tmp_path / "e", {"identity": {"mse": 7.0}, "r": {"mse": 8.0}}, {"r": path})
    best, _, row, identity, caution = said_by([evaluation])
    assert best.startswith(f"{path}  (lowest mse of 1")
    assert row.split() == ["1", "r", "1", "8"] and identity.split() == ["identity", "7"]
    assert caution == "doing nothing (identity) is as good or better: mse 7"


def test_the_second_metric_decides_ties(tmp_path):
    runs = [make_run(tmp_path / "runs", name, [5.0], seed=seed) for seed, name in enumerate(("a", "b"))]
    paths = {run.name: checkpoint.checkpoints(run)[0] for run in runs}
    scores = {"a": {"mse": 8.0, "psnr": 30.0}, "b": {"mse": 8.0, "psnr": 31.0}}
    evaluation = make_evaluation(tmp_path / "e", scores, paths)
    best = said_by([evaluation, tmp_path / "runs"], "mse", "psnr")[0]
    reason = "lowest mse of 2 kept checkpoints, shared by 1 more; ties go to the better psnr"
    assert best.startswith(f"{paths['b']}  ({reason}")
    assert said_by([evaluation, tmp_path / "runs"], "val/mse")[0].startswith(str(paths["a"]))


def test_the_front_of_quality_and_cost(two_models, tmp_path):
    worse = tmp_path / "more"
    shutil.copytree(two_models, worse)
    make_real_run(worse, "bad", "ptc_dih", **{"val/mse": 20.0})
    best, header, first, second, *_ = said_by([worse], pareto=True)
    assert best.startswith(str(worse / "good")) and "lowest val/mse of the 2 on the Pareto front of 3" in best
    assert header.split() == ["run", "model", "epoch", "val/mse", "cost/parameters", "cost/gflop"]
    assert [first.split()[1], second.split()[1]] == ["good", "cheap"]
    best = said_by([worse], "cost/parameters", "val/mse", pareto=True)[0]
    assert best.startswith(str(worse / "cheap")) and "lowest cost/parameters of the 2" in best


def test_a_latency_is_measured_only_if_asked_for(two_models, monkeypatch):
    measured = []

    def latency(model, size, device):
        measured.append(model["name"])
        return {"dih_nm": 1.0, "ptc_dih": 2.0}[model["name"]]

    monkeypatch.setattr(cost, "latency_ms", latency)
    said_by([two_models], pareto=True)
    assert measured == []
    said = said_by([two_models], "cost/latency_ms", pareto=True)  # against the default quality
    assert measured == ["dih_nm", "ptc_dih"] and "lowest val/mse of the 2 on the Pareto front of 2" in said[0]
    assert said_by([two_models], "cost/latency_ms")[0].startswith(str(two_models / "cheap"))
    where = choose.machine(torch.device("cpu"))
    assert f"cost/latency_ms: median of {cost.REPEATS} passes of one image, on {where}" in said
    assert where == f"the CPU of this machine with {torch.get_num_threads()} thread(s)"


def test_cautions(two_models, tmp_path):
    root = tmp_path / "runs"
    shutil.copytree(two_models, root)
    make_real_run(root, "masked", "dih_m", **{"val/mse": 1.0, "val/identity_mse": 12.0})
    make_real_run(root, "other", "dih_nm", "seed=4", **{"val/mse": 30.0})
    make_run(root, "old", [0.5], metric="val/psnr")
    said = "\n".join(said_by([root]))
    assert "left out: 1 checkpoints without val/mse" in said
    assert f"dih_m is given the object's mask; the best without: {root / 'good'}" in said
    assert "val/mse is of 2 different validations" in said
    assert "doing nothing" not in said and "identity" in said


def test_two_runs_of_one_name_are_told_apart(tmp_path):
    for sweep in ("one", "two"):
        make_run(tmp_path / sweep, "t0000", [5.0])
    said = said_by([tmp_path])
    assert [line.split()[1] for line in said[2:4]] == [str(tmp_path / "one" / "t0000"), str(tmp_path / "two" / "t0000")]


def test_what_was_skipped_is_said(tmp_path):
    run = make_run(tmp_path, "r", [5.0, 1.0])
    victim = checkpoint.checkpoints(run)[1]
    (victim / checkpoint.STATE).write_bytes(b"")
    said = said_by([tmp_path])
    assert said[0].startswith(str(checkpoint.checkpoints(run)[0]))
    assert said[-1] == f"skipped {victim}: training_state.pt does not match its sha256 in manifest.json"


def test_one_that_is_gone_is_the_best_and_is_not_exported(tmp_path):
    run = make_run(tmp_path / "runs", "r", [5.0])
    evaluation = make_evaluation(tmp_path / "e", {"r": {"mse": 8.0}}, {"r": checkpoint.checkpoints(run)[0]})
    shutil.rmtree(run)
    said = said_by([evaluation])
    assert said[0].startswith("r  (lowest mse of 1") and "is ranked, but cannot be exported" in said[-1]
    with pytest.raises(UserError, match="the checkpoint of r is gone, so that it cannot be exported"):
        said_by([evaluation], out=tmp_path / "x")
    assert not (tmp_path / "x").exists()
