"""``nrh bench ray``: what is read from a run, what a run is given, and one pair for real."""

import json
import os
import sys

import pytest

from nrh_dist.errors import UserError
from nrh_dist.workflows import bench_ray

WRITE = """
import json, os, pathlib, sys
run = pathlib.Path(sys.argv[1])
run.mkdir()
rates = [1.0, 40.0, 60.0, 50.0]
(run / "metrics.jsonl").write_text("".join(json.dumps({"images_per_s": rate}) + "\\n" for rate in rates))
(run / "environment").write_text(json.dumps(dict(os.environ)))
"""


def test_the_last_half_of_the_epochs_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    run = tmp_path / "run"
    assert bench_ray.images_per_second([sys.executable, "-c", WRITE, str(run)], run) == 55
    seen = json.loads((run / "environment").read_text())
    assert "RAY_ADDRESS" not in seen and seen["OMP_NUM_THREADS"] == "1" and seen["CUDA_VISIBLE_DEVICES"] == ""
    assert seen["PATH"] == os.environ["PATH"]


def test_a_run_that_fails_says_why(tmp_path):
    fails = [sys.executable, "-c", "import sys; print('well'); sys.exit('nrh: first\\nnrh: no disk')"]
    with pytest.raises(UserError, match=r"said: nrh: no disk$"):
        bench_ray.images_per_second(fails, tmp_path / "run")


@pytest.mark.slow
def test_a_pair_of_small_runs():
    (figure,) = bench_ray.bench(print, bench_ray.Settings(size=64, width=0.25, epochs=2, pairs=1))
    assert figure.target == 0.95 and figure.rounds == 1
    assert 0.2 < figure.ratio < 5
    assert figure.floor == pytest.approx(1 / figure.ratio, rel=0.01)
