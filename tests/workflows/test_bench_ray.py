"""``nrh bench ray``: a turn of each of three starts for real."""

import pytest

from nrh_dist.workflows import bench_ray


@pytest.mark.slow
def test_three_starts_of_small_runs():
    figures = bench_ray.bench(print, bench_ray.Settings(size=64, width=0.25, starts=3, turns=1, counted=1, warm=1))
    assert [figure.name.split(", ")[1] for figure in figures] == ["one worker", "two workers"]
    for figure in figures:
        assert figure.target == 0.95 and figure.rounds == 3
        assert 0.2 < figure.ratio < 5
        assert figure.floor == pytest.approx(1 / figure.ratio, rel=0.01)
