"""The page of a study, from files as a study writes them."""

import csv
import json
import shutil

import numpy as np
import pytest

from nrh_dist.errors import UserError
from nrh_dist.report.study.collect import read
from nrh_dist.report.study.page import RECORDS, write

PHOTOS, EACH, SEEDS = 40, 3, 2
LEFT = {  # of the input's error, by system
    "dih_m": 0.5,
    "dih_m-pasted": 0.45,
    "dih_nm": 1.3,
    "ptc_att_dih": 1.2,
    "ptc_dih": 1.1,
    "two_stage": 1.4,
    "two_stage-true-masks": 0.5,
    "gated": 0.8,
    "gated_calibrated": 0.95,
    "gated_swept": 0.7,
    "gated_swept_calibrated": 0.65,
    "dih_nm-residual": 1.05,
    "gated-fused": 0.8,
}
COLUMNS = (
    *("dataset", "model", "run", "name", "mse", "psnr", "fmse", "lpips", "area_fraction", "identity_mse"),
    *("identity_psnr", "category", "group", "mse_change"),
)


def run_of(system, seed):
    """As the pool calls it: what is derived of a run stands behind its name."""
    for derived in ("-pasted", "-true-masks"):
        if system.endswith(derived):
            return f"{system.removesuffix(derived)}-seed{seed}{derived}"
    return f"{system}-seed{seed}"


def write_evaluation(folder, datasets, random):
    folder.mkdir(parents=True)
    rows = []
    for dataset in datasets:
        identity = random.lognormal(4, 1, PHOTOS * EACH)
        runs = {"identity": np.ones(len(identity))}
        for system, left in LEFT.items():
            for seed in range(1 if system == "gated-fused" else SEEDS):
                runs[run_of(system, seed)] = left * random.lognormal(0, 0.1, len(identity))
        for run, factor in runs.items():
            model = "identity" if run == "identity" else run.split("-")[0].removesuffix("_calibrated")
            for number, mse in enumerate(identity * factor):
                name, category = f"c{number // EACH}_{number}_1", ("person", "dog", "cup")[number % 3]
                area = (number * 7 % 60) / 100
                cells = [mse, 40 - mse / 50, 5 * mse, "", area, identity[number], 40 - identity[number] / 50]
                change = (identity[number] ** 0.5 - mse**0.5) ** 2
                rows.append([dataset, model, run, name, *cells, category, f"coco:{number // EACH}", change])
    with (folder / "per_image.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    counts = dict.fromkeys(datasets, PHOTOS * EACH)
    summary = {"schema": 1, "size": 64, "protocol": {}, "datasets": counts, "data": "d", "split": "test", "models": []}
    (folder / "summary.json").write_text(json.dumps(summary))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    random = np.random.default_rng(0)
    for name, datasets in (("test-lab", ["COCOExp"]), ("test-exp", ["COCOExp"]), ("controls", ["NoOp", "Untouched"])):
        write_evaluation(out / "evaluations" / name, datasets, random)
    runs = []
    for system in (system for system in LEFT if "calibrated" not in system and "-pasted" not in system):
        for seed in range(SEEDS):
            run = f"{system}-seed{seed}"
            runs.append({"run": run, "system": system, "seed": seed, "words": [f"model.name={system}"]})
            (out / "runs" / run).mkdir(parents=True)
            lines = [{"val/mse": 300 / epoch, "val/identity_mse": 200, "time_s": 60 * epoch} for epoch in (1, 2, 3)]
            (out / "runs" / run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    plan = {"scale": {"size": 64, "width": 0.25}, "epochs": 3, "seeds": SEEDS, "trials": 6, "cuts": ["3 epochs of 50"]}
    data = {"photos": "real photos", "sources": ["coco"], "val_fraction": 0.1, "composites": {"train/train": 20_000}}
    data["val_photos"] = "coco"
    about = {"schema": 2, "command": "nrh study", "version": "0.1.0", "commits": ["abc", "def"], "began": "b"}
    about |= {"ended": "e", "calibrated": {"gated_calibrated-seed0": "Gate threshold 0.4"}}
    about |= {"plan": plan, "data": data, "runs": runs, "common": ["preset=tiny"], "out": "study"}
    about |= {"rates": {"dih_m": 0.001}, "rates_tried": {"dih_m": {"0.0003": 4.0, "0.001": 3.0}}}
    about["recipes"] = {"gated-fused": {"differs": "latent fusion"}, "dih_nm-residual": {"differs": "a difference"}}
    (out / "study.json").write_text(json.dumps(about))
    risk = [["set", "model", "seed", "threshold", "opened", "worse1", "mse", "identity_mse", "images"]]
    for test in ("test-lab", "test-exp"):
        for model in ("gated", "gated_swept"):
            risk += [[test, model, seed, t, 1 - t, 0.3 * (1 - t), 90, 100, 120] for seed in range(2) for t in (0, 0.5)]
    with (out / "risk.csv").open("w", newline="") as file:
        csv.writer(file).writerows(risk)
    return out


def test_the_page_says_what_was_found(folder, tmp_path):
    text = write(folder, tmp_path / "report").read_text()
    assert "is confirmed: 6 of 6 pairs hold" in text
    assert "Better than doing nothing in MSE: DIH-M, Gated (unswept)" in text
    assert "worse: DIH-NM, PTC-att-DIH, PTC-DIH, Two-stage" in text
    assert "in at most 5 % (upper end): reached (0.0 (0.0 to 0.0) %; by seed 0.0, 0.0)" in text
    assert "at least half of the way from the better of input and DIH-NM to DIH-M (lower end): reached (0.7" in text
    assert "by commit abc, def, begun b, ended e" in text and "gated_calibrated-seed0: Gate threshold 0.4" in text
    assert "DIH-M 0.001, the highest of them" in text
    assert "Cut to fit the budget: 3 epochs of 50." in text
    assert "nrh train preset=tiny model.name=ptc_dih" in text
    assert "val (10 % of the training photos, of those of coco alone)" in text
    for target in ("sizes.png", "risk.png", "ablations.png", "learning.png", "by_seed.csv", "learning.csv", *RECORDS):
        assert f"({target})" in text and (tmp_path / "report" / target).stat().st_size


def test_a_goal_that_one_seed_alone_misses_is_not_reached(folder, tmp_path):
    """On average 3.3 % are made worse, with one seed 6.7 %."""
    spoilt = shutil.copytree(folder, tmp_path / "spoilt")
    file = spoilt / "evaluations" / "test-lab" / "per_image.csv"
    with file.open(newline="") as rows:
        columns, *rows = csv.reader(rows)
    mse, identity = columns.index("mse"), columns.index("identity_mse")
    of_seed = [row for row in rows if row[columns.index("run")] == "gated_swept_calibrated-seed1"]
    for row in of_seed[:8]:
        row[mse] = float(row[identity]) + 2
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([columns, *rows])
    text = write(spoilt, tmp_path / "report").read_text()
    assert "in at most 5 % (upper end): **not reached** (3.3 (" in text and "by seed 0.0, 6.7" in text


def test_what_cannot_be_written_leaves_the_earlier_page(folder, tmp_path, monkeypatch):
    before = write(folder, tmp_path / "report").read_text()
    with monkeypatch.context() as patch, pytest.raises(UserError, match="cannot read or write"):
        patch.setattr(shutil, "copyfile", refuse)
        write(folder, tmp_path / "report")
    assert (tmp_path / "report" / "README.md").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["report"], "nothing is left beside it"


def refuse(source, target):
    raise OSError(28, "No space left on device", str(target))


def test_every_number_is_there_by_model_and_seed(folder, tmp_path):
    write(folder, tmp_path / "report")
    with (tmp_path / "report" / "by_seed.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["set"] == "test-lab" and row["group"] == "all"]
    assert {(row["model"], row["seed"]) for row in rows} >= {("identity", ""), ("ptc_dih", "0"), ("ptc_dih", "1")}
    test = read(folder).tests["test-lab"]
    found = {(row["model"], row["seed"]): float(row["mse"]) for row in rows}
    assert found["ptc_dih", "1"] == pytest.approx(test.systems["ptc_dih"].mse[1].mean(), abs=1e-5)
    assert found["identity", ""] == pytest.approx(test.identity.mean(), abs=1e-5)


def test_what_is_derived_of_a_run_is_a_system_of_its_own(folder):
    systems = read(folder).tests["test-lab"].systems
    assert systems["dih_m-pasted"].seeds == systems["two_stage-true-masks"].seeds == (0, 1)
    assert {*systems} == {"identity", *LEFT}


def test_an_unfinished_study_is_none(folder, tmp_path):
    with pytest.raises(UserError, match="no study"):
        read(tmp_path)
    about = json.loads((folder / "study.json").read_text())
    del about["ended"]
    (tmp_path / "study.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="was not finished"):
        read(tmp_path)
    (tmp_path / "study.json").write_text(json.dumps(about | {"schema": 1}))
    with pytest.raises(UserError, match="written by another version"):
        read(tmp_path)


def test_a_test_that_does_not_tell_what_was_changed_is_scored_anew(folder, tmp_path):
    old = shutil.copytree(folder, tmp_path / "old")
    file = old / "evaluations" / "test-lab" / "per_image.csv"
    file.write_text(file.read_text().replace(",mse_change", ",something", 1))
    with pytest.raises(UserError, match="scored by an earlier version: delete it"):
        read(old)
