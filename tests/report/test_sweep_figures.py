"""What the figures of a sweep show: laws of the data, apart from the drawing."""

from pathlib import Path

import numpy as np
import pytest
import sweeps

from nrh_dist.report import sweep_figures as figures
from nrh_dist.report.sweep_collect import Sweep, read


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return read(sweeps.write(tmp_path / "s", 20, failed=(4,), seed=2))


def test_the_best_so_far_never_rises_and_ends_at_the_best(sweep: Sweep) -> None:
    data = figures.best_so_far(sweep)
    assert len(data.best) == sweep.epochs
    assert (np.diff(data.best) <= 0).all()
    assert (data.best <= data.values).all()
    assert data.best[-1] == min(one.best for one in sweep.trials)


def test_epochs_count_by_trial_and_where_trials_wait_for_each_other_by_epoch(tmp_path: Path) -> None:
    for scheduler, order in (("asha", [4, 3, 9, 1]), ("pbt", [4, 9, 3, 1])):
        folder = sweeps.write(tmp_path / scheduler, 2, scheduler=scheduler, max_epochs=2, begun=0)
        drawn = {"model.fusion_width": 128, "model.freeze": "none", "optim.lr": 0.001}
        sweeps.write_trial(folder, 0, drawn, [4.0, 3.0])
        sweeps.write_trial(folder, 1, drawn, [9.0, 1.0])
        assert figures.best_so_far(read(folder)).values.tolist() == order


def test_every_trial_has_its_learning_curve(sweep: Sweep) -> None:
    curves = figures.learning_curves(sweep)
    assert [curve.name for curve in curves] == [one.name for one in sweep.trials]
    assert {curve.ending for curve in curves} == {"finished", "stopped early", "failed"}
    assert [curve.name for curve in curves if curve.is_best] == [sweep.best.name if sweep.best else None]
    assert all(len(curve.epochs) == one.epochs for curve, one in zip(curves, sweep.trials, strict=True))


def test_a_later_life_begins_at_the_row_that_it_took_over(tmp_path: Path) -> None:
    folder = sweeps.write(tmp_path / "s", 2, scheduler="pbt", max_epochs=3, begun=0)
    drawn = {"model.fusion_width": 128, "model.freeze": "none", "optim.lr": 0.001}
    sweeps.write_trial(folder, 0, drawn, [9.0, 8.0])
    sweeps.write_trial(folder, 1, drawn, [7.0, 6.0, 5.0])
    sweeps.write_trial(folder, 0, drawn, [7.0, 6.0, 4.0], life=2, origin={"trial": "t0001", "epoch": 2})
    found = {curve.name: curve for curve in figures.learning_curves(read(folder))}
    assert found["t0000-2"].epochs.tolist() == [2, 3]
    assert found["t0000"].ending == figures.REPLACED


def test_parallel_lines_lie_on_the_axes(sweep: Sweep) -> None:
    data = figures.parallel(sweep)
    assert data.places.shape == (20, 4)
    assert ((data.places >= 0) & (data.places <= 1)).all()
    assert all(0 <= place <= 1 for axis in data.axes for place, _ in axis.ticks)
    by_name = {one.name: one for one in sweep.trials}
    low, high = np.log([0.0001, 0.003])
    for name, (width, freeze, rate, metric) in zip(data.names, data.places, strict=True):
        trial = by_name[name]
        for axis, place in zip(data.axes[:2], (width, freeze), strict=True):
            nearest = min(axis.ticks, key=lambda tick: abs(tick[0] - place))
            assert nearest[1] == str(trial.assignment[axis.title])
        assert rate == pytest.approx((np.log(trial.assignment["optim.lr"]) - low) / (high - low))
        assert (metric == 0) == (name == data.names[0])
    assert (np.diff(data.places[:, 3]) >= 0).all(), "the best trial first"


def test_a_key_that_a_trial_does_not_use_is_beside_its_axis(tmp_path: Path) -> None:
    space = {
        "model.freeze": {"choice": ["encoder", "none"], "when": {}},
        "optim.lr": {"loguniform": [0.0001, 0.003], "when": {"model.freeze": "none"}},
    }
    sweep = read(sweeps.write(tmp_path / "s", space=space))
    data = figures.parallel(sweep)
    used = {one.name: "optim.lr" in one.assignment for one in sweep.trials}
    assert [place != figures.UNUSED for place in data.places[:, 1]] == [used[name] for name in data.names]
    assert not all(used.values())
    figures.draw_parallel(data, tmp_path / "parallel.png")


def test_what_matters_is_told_from_chance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "SHUFFLES", 50)
    space = {"optim.lr": sweeps.SPACE["optim.lr"], "model.dropout": {"choice": [True, False], "when": {}}}
    alarms = 0
    for seed in range(6):
        found = figures.importance(read(sweeps.write(tmp_path / f"{seed}", 40, "none", space=space, seed=seed)))
        assert isinstance(found, figures.Importance)
        assert found.shares.sum() == pytest.approx(1)
        assert found.keys == ["optim.lr", "model.dropout"]
        assert found.shares[0] > found.chance[0]
        alarms += int(found.shares[1] > found.chance[1])
    assert alarms <= 2


def test_importance_says_why_it_is_not_there(tmp_path: Path) -> None:
    few = figures.importance(read(sweeps.write(tmp_path / "few", 11, failed=(0, 1))))
    assert few == "Not computed: 9 trials came to an end with a value, and it takes at least 10."
    population = figures.importance(read(sweeps.write(tmp_path / "pbt", 12, scheduler="pbt")))
    assert isinstance(population, str)
    assert "several trials in turn" in population


def test_the_front_holds_what_none_beats(tmp_path: Path) -> None:
    metrics = ("val/mse", "cost/parameters", "cost/gflop")
    data = figures.pareto(read(sweeps.write(tmp_path / "s", 24, metrics=metrics)))
    assert 0 < data.front.sum() < len(data.names)
    for i, is_on in enumerate(data.front):
        beaten = [
            all(a <= b for a, b in zip(other, data.values[i], strict=True)) and list(other) != list(data.values[i])
            for other in data.values
        ]
        assert is_on == (not any(beaten))
    assert data.front[int(np.argmin(data.values[:, 0]))]


def test_a_wide_range_gets_a_log_axis_with_both_ends(tmp_path: Path) -> None:
    scale = figures._Scale.of(np.array([2.0, 300.0, np.inf]))
    assert scale.is_log
    assert [label for _, label in scale.ticks()][:2] == ["2", "300"]
    assert scale.places(np.array([2.0, 300.0, np.inf])).tolist() == [0, 1, figures.UNUSED]
    assert figures._Scale.of(np.array([5.0])).places(np.array([5.0])).tolist() == [0.5]
