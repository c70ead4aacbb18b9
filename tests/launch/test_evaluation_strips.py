"""The pictures of an evaluation: whatever a run is called, it overwrites no other picture."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from nrh_dist.engine.score import Entry
from nrh_dist.engine.summary import Scores
from nrh_dist.launch import detectors, strips

COLUMNS = ("correction", "change_outside", "detected", "detected_outside")
RUNS = ("mask", "real", "x", "x-mask", "photo", "shifted", "../x")
PACK = SimpleNamespace(
    composites=np.full((2, 8, 8, 3), 1, np.uint8),
    reals=np.full((2, 8, 8, 3), 2, np.uint8),
    masks=np.full((2, 8, 8), 3, np.uint8),
    datasets=["Sample"] * 2,
    names=["a", "b"],
    groups=["a", "b"],
)
FOUND = [Entry("identity", "identity", None, None), *(Entry(run, "ptc_dih", Path(run), 8) for run in RUNS)]


def grey(value: int) -> np.ndarray:
    return np.full((8, 8), value, np.uint8)


class FakePool:
    """Gives ``pictures`` for every item."""

    def __init__(self, pictures: dict) -> None:
        self.pictures = pictures

    def map(self, items: list, done: Callable) -> None:
        for index in range(len(items)):
            done(index, self.pictures)


def values_in(folder: Path, files: list[str]) -> list[int]:
    assert all(Path(file).name == file for file in files)
    return [int(np.asarray(Image.open(folder / file)).max()) for file in files]


def test_each_picture_has_a_file_of_its_own(tmp_path: Path) -> None:
    outputs = {run: grey(10 + i) for i, run in enumerate(RUNS)}
    masks = {run: grey(20 + i) for i, run in enumerate(RUNS)}
    values = {"mse": np.array([1.0, 2.0]), "identity_mse": np.array([2.0, 2.0])}
    unknown = np.full(2, np.nan)
    scores = [Scores(entry.run, entry.model, {**dict.fromkeys(COLUMNS, unknown), **values}) for entry in FOUND]
    pool = FakePool({"outputs": outputs, "masks": masks})
    strips.write(pool, tmp_path / "strips", PACK, np.arange(2), FOUND, scores)  # type: ignore[arg-type]
    written = json.loads((tmp_path / "strips" / "strips.json").read_text())["strips"]
    assert written
    for strip in written:
        images = strip["images"]
        known = [images["composite"], images["real"], images["mask"]]
        assert values_in(tmp_path / "strips", known) == [1, 2, 3]
        assert values_in(tmp_path / "strips", [images["outputs"][run] for run in RUNS]) == [10, 11, 12, 13, 14, 15, 16]
        assert values_in(tmp_path / "strips", [images["masks"][run] for run in RUNS]) == [20, 21, 22, 23, 24, 25, 26]


def test_each_picture_of_a_detector_has_a_file_of_its_own(tmp_path: Path) -> None:
    pictures = {
        "shifted": [grey(30), grey(31)],
        "detected": {run: [grey(40 + i), grey(50 + i)] for i, run in enumerate(RUNS)},
    }
    row = {"dataset": "Sample", "human_negative": None, "predicted_negative": 0.1, "predicted_positive": 0.1}
    known = [{**row, "name": name, "run": run} for name in PACK.names for run in RUNS]
    detectors._write_strips(FakePool(pictures), tmp_path / "strips", PACK, FOUND[1:], [0, 1], known)  # type: ignore[arg-type]
    for strip in json.loads((tmp_path / "strips" / "strips.json").read_text())["strips"]:
        images = strip["images"]
        assert values_in(tmp_path / "strips", [images["photo"], images["mask"], *images["shifted"]]) == [2, 3, 30, 31]
        for k, first in enumerate((40, 50)):
            found = values_in(tmp_path / "strips", [images["detected"][run][k] for run in RUNS])
            assert found == [first + i for i in range(len(RUNS))]
