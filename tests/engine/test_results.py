"""The lines that an evaluation prints."""

from typing import Any

import numpy as np

from nrh_dist.engine.results import lines
from nrh_dist.engine.summary import Images, Scores, differences, summarise


def scores(model: str, run: str, *mse: float) -> Scores:
    values = {"mse": mse, "psnr": [30.0] * len(mse), "identity_mse": [1200.0] * len(mse)}
    missing = {name: [np.nan] * len(mse) for name in ("fmse", "lpips")}
    return Scores(run, model, {name: np.array(column) for name, column in (values | missing).items()})


def content(*datasets: str) -> dict[str, Any]:
    images = Images(np.repeat(datasets, 2), np.full(2 * len(datasets), 0.05))
    found = [
        scores("identity", "identity", *[1200.0, 1200.0] * len(datasets)),
        scores("two_stage", "two", *[1200.5, 1300.0] * len(datasets)),
        scores("dih_m", "two-true-masks", *[1100.0, 1302.0] * len(datasets)),
    ]
    compared = differences(images, found, [("two", "two-true-masks")])
    return {"size": 64, "split": "test", "models": summarise(images, found), "differences": compared}


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
    models = summarise(Images(np.array(["A", "A"]), np.full(2, 0.05)), [scores("dih_nm", "mine", np.nan, 3.0)])
    said = lines({"size": 64, "split": "test", "models": models, "differences": []})
    assert said[-1] == "mine: 1 images of A without a finite value, left out of its means"
