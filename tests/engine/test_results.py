"""The lines that an evaluation prints."""

from typing import Any

from nrh_dist.engine.results import lines
from nrh_dist.engine.summary import differences, summarise


def row(dataset: str, model: str, run: str, mse: float | None) -> dict[str, Any]:
    values = {"dataset": dataset, "model": model, "run": run, "name": "n", "mse": mse, "psnr": mse and 30.0}
    return {**values, "fmse": None, "lpips": None, "area_fraction": 0.05, "identity_mse": 1200.0}


def content(*datasets: str) -> dict[str, Any]:
    rows = []
    for dataset in datasets:
        rows += [row(dataset, "identity", "identity", 1200.0) for _ in range(2)]
        rows += [row(dataset, "two_stage", "two", mse) for mse in (1200.5, 1300.0)]
        rows += [row(dataset, "dih_m", "two-true-masks", mse) for mse in (1100.0, 1302.0)]
    pairs = [("two", "two-true-masks")]
    return {"size": 64, "split": "test", "models": summarise(rows), "differences": differences(rows, pairs)}


def test_one_data_set():
    assert lines(content("COCOExp")) == [
        "means over the images of the test list at 64 px",
        "model      run             images       MSE   PSNR  fMSE  LPIPS  worse by >1",
        "identity   identity             2  1,200.00  30.00     -      -            -",
        "two_stage  two                  2  1,250.25  30.00     -      -       50.0 %",
        "dih_m      two-true-masks       2  1,201.00  30.00     -      -       50.0 %",
        "",
        "one harmoniser given the true masks (C_s) and the predicted ones (C_p), as in the paper's Table 1",
        "           run             images       MSE   PSNR  LPIPS  better by >1  worse by >1",
        "C_s        two-true-masks       2  1,201.00  30.00      -",
        "C_p        two                  2  1,250.25  30.00      -",
        "C_p - C_s                       2    +49.25  +0.00      -             1            1",
    ]


def test_several_data_sets_are_named_and_without_two_stage_there_is_no_table_1():
    found = content("A", "B")
    assert [line.split()[0] for line in lines(found)[2:5]] == ["A", "A", "A"]
    assert [line.split()[:2] for line in lines(found) if line.startswith("all")] == [
        ["all", "identity"],
        ["all", "two_stage"],
        ["all", "dih_m"],
        ["all", "C_s"],
        ["all", "C_p"],
        ["all", "C_p"],
    ]
    assert len(lines({**found, "differences": []})) == 2 + 9


def test_images_without_a_value_are_said():
    rows = [row("A", "dih_nm", "mine", mse) for mse in (None, 3.0)]
    said = lines({"size": 64, "split": "test", "models": summarise(rows), "differences": []})
    assert said[-1] == "mine: 1 images of A without a finite value, left out of its means"
