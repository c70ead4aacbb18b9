import csv
import json
import subprocess
import sys

import pytest

from nrh_dist.errors import UserError
from nrh_dist.workflows.demo import run_demo


@pytest.mark.slow
def test_everything_once_and_again(tmp_path):
    """As a user does it; a second call finds everything done."""
    command = [sys.executable, "-m", "nrh_dist", "demo", "--out", str(tmp_path / "demo")]
    subprocess.run(command, check=True)
    demo = tmp_path / "demo"
    summary = json.loads((demo / "evaluation" / "summary.json").read_text())
    assert [one["run"] for one in summary["models"]] == ["identity", "ptc_att_dih", "dih_nm", "ptc_dih"]
    assert summary["datasets"] == {"COCOExp": 96}
    with (demo / "sweep" / "trials.csv").open() as file:
        trials = list(csv.DictReader(file))
    assert len(trials) >= 4 and {trial["status"] for trial in trials} <= {"finished", "stopped early"}
    for run in ("ptc_att_dih", "dih_nm", "ptc_dih"):
        rows = [json.loads(line) for line in (demo / "runs" / run / "metrics.jsonl").read_text().splitlines()]
        assert rows[-1]["val/mse"] < 0.5 * rows[0]["val/mse"]
    assert rows[0]["world_size"] == 1
    assert json.loads((demo / "runs" / "ptc_att_dih" / "metrics.jsonl").read_text().splitlines()[0])["world_size"] == 2
    assert (demo / "report" / "index.html").exists()
    again = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "is finished" in again.stdout


def test_another_folder_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UserError, match="is no demo"):
        run_demo(tmp_path, print)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
