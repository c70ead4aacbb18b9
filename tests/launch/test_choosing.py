"""From checkpoints through an evaluation to an exported folder that is scored alike, by the command line."""

import csv
import json
from pathlib import Path

import pytest
from choices import make_real_run
from packs import write_tree

from nrh_dist import cli

pytestmark = pytest.mark.usefixtures("ray_session")


def nrh(*words) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main([str(word) for word in words])
    return caught.value.code


def scores(evaluation: Path, run: str) -> list[dict[str, str]]:
    with (evaluation / "per_image.csv").open() as file:
        return [{**row, "run": ""} for row in csv.DictReader(file) if row["run"] == run]


@pytest.mark.slow
def test_an_exported_folder_is_scored_like_its_checkpoint(tmp_path, capsys):
    tree = write_tree(tmp_path / "tree", train=4, test=6)
    make_real_run(tmp_path / "runs", "one", "two_stage")
    best = make_real_run(tmp_path / "runs", "two", "gated")
    runs = [tmp_path / "runs" / "one" / "checkpoints" / best.name, best]
    assert nrh("evaluate", *runs, "--data", tree, "--out", tmp_path / "e") == 0
    entry = json.loads((tmp_path / "e" / "summary.json").read_text())["checkpoints"][-1]
    assert entry["path"] == str(best)
    capsys.readouterr()
    for number, folders in enumerate(([tmp_path / "e"], [tmp_path / "runs", tmp_path / "e"])):
        out = tmp_path / f"exported-{number}"
        assert nrh("best", *folders, "--metric", "mse", "--metric", "cost/gflop", "--pareto", "--export", out) == 0
        said = capsys.readouterr().out
        assert "cost/gflop" in said and "identity" in said and f"to {out}" in said
        assert "The test list of `tree` at 64 px" in (out / "README.md").read_text()
    chosen = "one" if said.startswith(str(runs[0])) else "two"
    assert nrh("evaluate", out, "--data", tree, "--out", tmp_path / "again") == 0
    assert scores(tmp_path / "again", out.name) == scores(tmp_path / "e", chosen) != []
    assert nrh("best", tmp_path / "again", "--export", out) == 1
    assert "exists" in capsys.readouterr().err
