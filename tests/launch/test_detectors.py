"""The evaluation of detectors through the pool: the same bytes for any number of actors, and files that say it all."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from evaluated import content
from packs import write_tree
from PIL import Image

from nrh_dist import config
from nrh_dist.data.layouts import Source
from nrh_dist.data.pack import cached_pack, open_pack
from nrh_dist.engine.dist import Place
from nrh_dist.engine.run import find_pack, run
from nrh_dist.errors import UserError
from nrh_dist.launch import detectors
from nrh_dist.launch.evaluate import Options, evaluate
from nrh_dist.report.html import write

pytestmark = pytest.mark.usefixtures("ray_session")

TINY = ("preset=tiny", "model.width=0.1", "train.epochs=1", "data.val_fraction=0.3", "model.name=ptc")


def silent(_: str) -> None:
    pass


def write_photos(root: Path, count: int = 60) -> Path:
    """A folder of smooth photos and masks with human thresholds for most of them."""
    random = np.random.default_rng(0)
    lines = ["name,negative_gain,positive_gain"]
    for number in range(count):
        coarse = random.integers(60, 180, (4, 4, 3)).astype(np.uint8)
        mask = np.zeros((72, 72), np.uint8)
        mask[10 : 30 + number // 2, 20:60] = 255 if number else 0  # the first is empty
        for kind, image in (("images", Image.fromarray(coarse).resize((72, 72))), ("masks", Image.fromarray(mask))):
            (root / kind).mkdir(parents=True, exist_ok=True)
            image.save(root / kind / f"p{number}.png")
        if number % 10:
            lines.append(f"p{number},{2 ** -random.uniform(0.05, 0.5):.6f},{2 ** random.uniform(0.05, 0.5):.6f}")
    (root / "thresholds.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos") / "Thresholds")


@pytest.fixture(scope="module")
def runs(photos, tmp_path_factory) -> dict[str, str]:
    """Both stages for an epoch, the second also with two transforms, and a harmoniser."""
    root = tmp_path_factory.mktemp("runs")
    data = [f"data.root={photos}", f"data.thresholds={photos / 'thresholds.csv'}"]
    of_stage = {
        "equivariance": [*data[:1], "stage=equivariance"],
        "detector": [*data, "stage=thresholds"],
        "two-transforms": [*data, "stage=thresholds", "data.transforms=[exposure,contrast]"],
        "harmoniser": [f"data.root={write_tree(root / 'tree')}", "model.name=dih_nm"],
    }
    folders = {}
    for name, words in of_stage.items():
        one = config.load(None, [*TINY, *words, f"run.root={root}", f"run.name={name}"])
        config.run_dir(one).mkdir(parents=True)
        run(one, find_pack(one, silent), Place(), lambda _: None, silent)
        folders[name] = str(config.run_dir(one))
    return folders


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def evaluation(runs, photos, tmp_path_factory) -> tuple[Path, list[str]]:
    said: list[str] = []
    words = [runs["detector"], runs["two-transforms"]]
    out = tmp_path_factory.mktemp("one") / "e"
    return evaluate(words, photos, out, Options(thresholds=photos / "thresholds.csv"), said.append), said


@pytest.mark.slow
def test_two_actors_write_the_same_bytes(evaluation, runs, photos, tmp_path):
    words = [runs["detector"], runs["two-transforms"]]
    again = evaluate(words, photos, tmp_path / "e", Options(actors=2, thresholds=photos / "thresholds.csv"), silent)
    assert content(again) == content(evaluation[0])


def test_files_say_what_they_should(evaluation, photos):
    folder, said = evaluation
    rows = rows_of(folder / "thresholds.csv")
    assert tuple(rows[0]) == detectors.THRESHOLD_COLUMNS
    names = [row["name"] for row in rows if row["run"] == "detector"]
    assert names == [row["name"] for row in rows if row["run"] == "two-transforms"]
    measured = {row["name"]: row for row in rows_of(photos / "thresholds.csv")}
    for row in rows:
        assert (row["human_negative"] != "") == (row["name"] in measured)
        if row["human_negative"]:
            assert 2 ** -float(row["human_negative"]) == pytest.approx(float(measured[row["name"]]["negative_gain"]))
        assert 0 <= float(row["predicted_positive"]) <= 1
        assert row["never_positive"] == "0" or float(row["predicted_positive"]) == 1

    offsets = rows_of(folder / "offsets.csv")
    assert tuple(offsets[0]) == detectors.OFFSET_COLUMNS
    scanned = [(row["run"], row["transform"]) for row in offsets[::101]]
    assert scanned == [("detector", "exposure"), ("two-transforms", "exposure"), ("two-transforms", "contrast")]
    assert [float(row["offset_stops"]) for row in offsets[:101]] == pytest.approx(np.arange(-50, 51) / 50)
    assert all((row["iou"] == "") == (float(row["offset_stops"]) == 0) for row in offsets)

    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["schema"], summary["kind"], summary["size"], summary["split"]) == (1, "detector", 64, "test")
    human = sum(row["human_negative"] != "" for row in rows) // 2
    assert summary["human"]["photos"] == human
    assert summary["human"]["constant"]["source"].startswith("median of ")
    trained = [row for name, row in measured.items() if name not in names]
    medians = np.median([-np.log2(float(row["negative_gain"])) for row in trained])
    assert summary["human"]["constant"]["negative"] == pytest.approx(medians, abs=1e-6)
    for detector in summary["detectors"]:
        own = [row for row in rows if row["run"] == detector["run"] and row["human_negative"]]
        error = np.mean([abs(float(row["predicted_negative"]) - float(row["human_negative"])) for row in own])
        assert detector["thresholds"][0]["error"] == pytest.approx(error, abs=1e-5)
        assert detector["images"] == len(names)
    assert any(line.split()[:3] == ["two-transforms", "contrast", "unchanged"] for line in said)
    assert f"detector: {summary['detectors'][0]['verdict']}" in said
    assert any(line.split()[:2] == ["constant", "both"] for line in said)
    assert json.loads((folder / "strips" / "strips.json").read_text())["strips"][0]["offsets"] == [
        -0.75,
        -0.25,
        0,
        0.25,
        0.75,
    ]


def test_the_report_reads_it(evaluation, tmp_path):
    write([evaluation[0]], tmp_path / "report")
    (table,) = (tmp_path / "report/tables").glob("errors-*.csv")
    errors = {(row["group"], row["run"]): row for row in rows_of(table)}
    summary = json.loads((evaluation[0] / "summary.json").read_text())
    for detector in summary["detectors"]:
        found = [row for (_, run), row in errors.items() if run == detector["run"]]
        assert any(f"{detector['thresholds'][2]['error']:.6f}" in row.values() for row in found)


@pytest.mark.slow
def test_coco_photos_are_scored_whole_and_without_human_thresholds_only_the_curves_are_there(runs, photos, tmp_path):
    square = [[10, 10, 50, 10, 50, 50, 10, 50]]
    ids = range(1, 6)
    annotations = tmp_path / "instances.json"
    annotations.write_text(
        json.dumps(
            {
                "images": [{"id": i, "file_name": f"p{i}.png", "width": 72, "height": 72} for i in ids],
                "annotations": [
                    {"id": i, "image_id": i, "category_id": 1, "segmentation": square, "area": 1600} for i in ids
                ],
                "categories": [{"id": 1, "name": "thing"}],
            }
        )
    )
    said: list[str] = []
    out = evaluate([runs["detector"]], photos / "images", tmp_path / "e", Options(annotations=annotations), said.append)
    assert len(rows_of(out / "thresholds.csv")) == 5
    summary = json.loads((out / "summary.json").read_text())
    assert summary["human"]["photos"] == 0
    assert summary["human"]["constant"]["source"] == "published means"
    assert summary["detectors"][0]["thresholds"][2]["error"] is None
    assert any("no human thresholds for these photos" in line for line in said)
    assert "cannot be said" in write([out], tmp_path / "report").read_text()


def test_the_constant_never_comes_from_scored_photos(photos):
    """A file of annotations is scored whole: then the published means are the constant."""
    pack = open_pack(cached_pack(Source(photos), 64, silent).root)
    human = detectors.human_thresholds(photos / "thresholds.csv", pack)
    everything = np.arange(len(pack))
    assert len(detectors._training_rows(pack, everything)) == 0
    assert (
        detectors.agreement.constant_of(human[detectors._training_rows(pack, everything)]).source == "published means"
    )
    assert set(detectors._training_rows(pack, pack.rows("test"))) == set(pack.rows("train"))


def test_mistakes(runs, photos, tmp_path):
    human = photos / "thresholds.csv"
    other = tmp_path / "other.csv"
    other.write_text("name,negative_gain,positive_gain\nelsewhere,0.5,2\n")
    for words, thresholds, message in (
        ([runs["detector"], "identity"], human, "identity is no detector"),
        ([runs["harmoniser"], runs["detector"]], human, "harmoniser is no detector"),
        ([runs["equivariance"]], human, "is of stage equivariance and detects nothing yet"),
        ([runs["harmoniser"]], human, "is for detectors; none of"),
        ([runs["detector"]], other, "has thresholds of elsewhere and others, but none of"),
        ([runs["detector"]], tmp_path / "none.csv", "not a readable CSV"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            evaluate(words, photos, tmp_path / "e", Options(thresholds=thresholds), silent)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "e").exists()
    pack = cached_pack(Source(photos), 64, silent).root
    with pytest.raises(UserError, match=r"is a pack, which needs no annotations: leave none\.json out"):
        evaluate([runs["detector"]], pack, tmp_path / "e", Options(annotations=Path("none.json")), silent)
