"""``nrh bench ray``: what is read from a run, and one pair for real."""

import sys

import pytest

from nrh_dist.workflows import bench_ray

WRITE = """
import json, pathlib, sys
run = pathlib.Path(sys.argv[1])
run.mkdir()
rates = [1.0, 40.0, 60.0, 50.0]
(run / "metrics.jsonl").write_text("".join(json.dumps({"images_per_s": rate}) + "\\n" for rate in rates))
"""


def test_the_last_half_of_the_epochs_counts(tmp_path):
    run = tmp_path / "run"
    assert bench_ray.images_per_second([sys.executable, "-c", WRITE, str(run)], run) == 55


@pytest.mark.slow
def test_a_pair_of_small_runs():
    figures = bench_ray.bench(print, bench_ray.Settings(size=64, width=0.25, epochs=2, pairs=1))
    assert [figure.name.split(", ")[1] for figure in figures] == ["one worker", "two workers"]
    for figure in figures:
        assert figure.target == 0.95 and figure.rounds == 1
        assert 0.2 < figure.ratio < 5
        assert figure.floor == pytest.approx(1 / figure.ratio, rel=0.01)
