"""The study as a whole, on a few sample scenes and with networks that learn next to nothing."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from nrh_dist.data.layouts import Source, index
from nrh_dist.errors import UserError
from nrh_dist.workflows.study.data import Photos
from nrh_dist.workflows.study.plan import Plan, Scale
from nrh_dist.workflows.study.study import study

TINY = Plan(
    scale=Scale(64, 0.1), epochs=2, seeds=2, control_seeds=1, ablation_seeds=1, trials=2, composites=300, cuts=("all",)
)

WORDS = ["train.batch_size=16", "train.epochs=2"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("study") / "out"
    study(out, Photos(), None, WORDS, print, TINY)
    return out


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_from_photos_to_report(made):
    page = (made / "report" / "README.md").read_text()
    for heading in ("What was found", "Systems", "By size", "Controls", "Ablations", "Risk against", "How it was made"):
        assert f"## {heading}" in page
    for file in ("sizes.png", "risk.png", "ablations.png", "learning.png", "by_seed.csv", "learning.csv"):
        assert (made / "report" / file).stat().st_size > 0 and file in page
    about = json.loads((made / "study.json").read_text())
    assert len(about["runs"]) == 2 * 7 + 3 + 9
    with (made / "report" / "by_seed.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["set"] for row in rows} == {"test-lab", "test-exp", "controls"}
    models = {row["model"] for row in rows}
    assert {"identity", "dih_m", "dih_m-pasted", "two_stage", "gated_swept_calibrated", "gated-unfrozen"} <= models
    assert {row["seed"] for row in rows if row["model"] == "ptc_dih"} == {"0", "1"}


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_no_photo_is_in_two_parts(made):
    photos = {}
    for name in ("train", "test-lab", "test-exp"):
        for sample in index(Source(made / "data" / name)):
            photos.setdefault(sample.split, set()).add(sample.group)
    assert {*photos} == {"train", "val", "test"} and all(photos.values())
    assert not photos["train"] & photos["val"] and not (photos["train"] | photos["val"]) & photos["test"]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_the_same_call_goes_on_and_another_study_is_refused(made):
    about = json.loads((made / "study.json").read_text())
    for lost in ("evaluations/controls", "runs/gated-seed1", "calibrated/gated_calibrated-seed1", "report"):
        shutil.rmtree(made / lost)
    said = []
    study(made, Photos(), None, WORDS, said.append, TINY)
    assert (made / "report" / "README.md").exists()
    assert [line for line in said if "trainings" in line] == ["systems: 1 of 12 trainings, 2 at once"]
    again = json.loads((made / "study.json").read_text())
    assert {**again, "ended": about["ended"]} == about
    with pytest.raises(UserError, match="holds another study"):
        study(made, Photos(), None, ["train.batch_size=8"], said.append, TINY)
