"""What a command of the bench is given, and one that fails."""

import json
import os
import sys

import pytest

from nrh_dist.errors import UserError
from nrh_dist.workflows.command import run

WRITE = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"


def test_its_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    run([sys.executable, "-c", WRITE, str(tmp_path / "seen")], tmp_path)
    seen = json.loads((tmp_path / "seen").read_text())
    assert "RAY_ADDRESS" not in seen and seen["OMP_NUM_THREADS"] == "1" and seen["CUDA_VISIBLE_DEVICES"] == ""
    assert seen["PATH"] == os.environ["PATH"] and seen["NRH_CACHE"] == str(tmp_path)


def test_one_that_fails_says_why(tmp_path):
    fails = [sys.executable, "-c", "import sys; print('well'); sys.exit('nrh: first\\nnrh: no disk')"]
    with pytest.raises(UserError, match=r"said: nrh: no disk$"):
        run(fails, tmp_path)
