"""``nrh bench trials``: what it runs, and one pair for real."""

import pytest

from nrh_dist.launch import space
from nrh_dist.workflows import bench_trials


def test_both_sides_run_the_same_sweep_in_turns(monkeypatch):
    ran = []

    def sweep(command, cache):
        program, (path, *words) = command[1:3], command[4:]
        searched = space.read(cache / "space.yaml", words)
        assert path == str(cache / "space.yaml") and searched.trials == 3
        assert searched.config(searched.first).scale.workers == 2
        ran.append(tuple(program))

    monkeypatch.setattr(bench_trials.command, "run", sweep)
    (figure,) = bench_trials.bench(lambda line: None)
    beside, on_ray_train = bench_trials.BESIDE, bench_trials.ON_RAY_TRAIN
    assert ran == [beside, on_ray_train, on_ray_train, beside, beside, on_ray_train]
    assert figure.rounds == 3 and figure.target is None


@pytest.mark.slow
def test_a_pair_of_small_sweeps():
    (figure,) = bench_trials.bench(print, bench_trials.Settings(epochs=1, trials=1, pairs=1))
    assert figure.rounds == 1 and figure.ratio > 1
