"""The report of detector evaluations: its numbers, its words, and what is refused."""

import csv
import json
import warnings
from collections.abc import Callable
from math import isnan
from pathlib import Path

import detector_evaluations
import evaluations
import numpy as np
import pytest
from detector_evaluations import OFFSETS, THRESHOLDS
from PIL import Image
from test_html import Page

from nrh_dist.errors import UserError
from nrh_dist.report import (
    detector_chapter,
    detector_collect,
    detector_figures,
    detector_strips,
    detector_tables,
    figures,
    html,
    paper,
    strips,
)
from nrh_dist.report.detector_collect import DetectorEvaluation
from nrh_dist.report.parts import shortened

TWO = {"good": 0.9, "random": 0.0}


@pytest.fixture(autouse=True)
def small_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks at the pictures of these tests."""
    monkeypatch.setattr(figures, "DOTS_PER_INCH", 40)
    monkeypatch.setattr(strips, "DOTS_PER_INCH", 40)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return detector_evaluations.write(tmp_path / "evaluation", TWO, transforms=("exposure", "contrast"))


@pytest.fixture
def evaluation(folder: Path) -> DetectorEvaluation:
    return detector_collect.read(folder)


def summary_of(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def edit_detector(folder: Path, sign: str, **values: object) -> None:
    """Change the entry of one sign of the first detector."""
    summary = summary_of(folder)
    entry = next(one for one in summary["detectors"][0]["thresholds"] if one["sign"] == sign)
    entry.update(values)
    evaluations.write_json(folder / "summary.json", summary)


def test_error_table_is_the_summary(folder: Path, tmp_path: Path) -> None:
    index = html.write([folder], tmp_path / "report")
    with (index.parent / "tables" / "errors-detectors-thresholds.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for detector in summary_of(folder)["detectors"]:
        mine = [row for row in rows if row["run"] == detector["run"]]
        assert [row["group"].split()[0] for row in mine] == ["negative", "positive", "both"]
        for entry, row in zip(detector["thresholds"], mine, strict=True):
            for key in ("error", "error_low", "error_high", "difference", "difference_low", "difference_high"):
                assert float(row[key]) == pytest.approx(entry[key], abs=1e-6)
            for ours, theirs in (("", "rank_correlation"), ("_low", "rank_low"), ("_high", "rank_high")):
                assert float(row[f"rank_correlation{ours}"]) == pytest.approx(entry[theirs], abs=1e-6)
            assert float(row["never_crossed"]) == entry["never_crossed"]
    constants = [row for row in rows if row["model"] == "constant"]
    expected = summary_of(folder)["detectors"][0]["thresholds"]
    for entry, row in zip(expected, constants, strict=True):
        values = [entry["constant_error"], entry["constant_low"], entry["constant_high"]]
        assert [float(row[key]) for key in ("error", "error_low", "error_high")] == pytest.approx(values, abs=1e-6)
        assert row["difference"] == row["rank_correlation"] == row["never_crossed"] == ""
    published = [row for row in rows if row["model"] == "published"]
    assert [float(row["error"]) for row in published] == [paper.DETECTOR_ERROR]
    assert published[0]["group"].startswith("both")


def test_only_a_certain_gain_is_bold(evaluation: DetectorEvaluation) -> None:
    bold = {row.run: row.bold for row in detector_tables.errors(evaluation, "x").rows if row.group.startswith("both")}
    assert bold == {"": frozenset(), "good": frozenset({3}), "random": frozenset()}
    assert detector_tables.errors(evaluation, "x").columns[3].key == "difference"


def test_threshold_table_counts_what_is_there(folder: Path) -> None:
    table = detector_tables.thresholds(detector_collect.read(folder), "x")
    rows = detector_evaluations.read_rows(folder / "thresholds.csv")
    people = [float(row["human_positive"]) for row in rows if row["run"] == "good"]
    mean, deviation, median = float(np.mean(people)), float(np.std(people, ddof=1)), float(np.median(people))
    assert table.rows[0].label == "People"
    assert table.rows[0].values[4:] == pytest.approx([47, mean, deviation, median])


def test_detection_table_reads_the_curve(folder: Path, evaluation: DetectorEvaluation) -> None:
    table = detector_tables.detection(evaluation, "x")
    rows = detector_evaluations.read_rows(folder / "offsets.csv")
    keys = [column.key for column in table.columns]
    for offset in ("-0.20", "0.00", "0.50"):
        written = {
            (row["transform"].replace("_", " "), row["run"]): 100 * float(row["detection_rate"])
            for row in rows
            if row["offset_stops"] == offset
        }
        column = keys.index(f"detected_percent_at_{float(offset):g}")
        assert {(row.group, row.run): row.values[column] for row in table.rows} == pytest.approx(written)


def test_curves_stop_at_zero_whose_value_stands_apart(folder: Path, evaluation: DetectorEvaluation) -> None:
    data = detector_figures.curves(evaluation, "exposure", "detection_rate")
    assert [line.label for line in data.lines] == ["good", "random"]
    assert data.images == 47
    rows = [row for row in detector_evaluations.read_rows(folder / "offsets.csv") if row["run"] == "random"]
    rows = [row for row in rows if row["transform"] == "exposure"]
    line = data.lines[1]
    assert line.at_zero == float(rows[50]["detection_rate"])
    assert 0 not in line.offsets
    np.testing.assert_allclose(line.offsets, [float(row["offset_stops"]) for row in rows if row is not rows[50]])
    np.testing.assert_allclose(line.values, [float(row["detection_rate"]) for row in rows if row is not rows[50]])
    assert isnan(detector_figures.curves(evaluation, "exposure", "iou").lines[0].at_zero)


def test_people_have_thresholds_for_exposure_only(evaluation: DetectorEvaluation) -> None:
    human = evaluation.thresholds[0].human
    medians = detector_figures.curves(evaluation, "exposure", "iou").medians
    assert medians == pytest.approx([-np.median(human[:, 0]), np.median(human[:, 1])])
    assert detector_figures.curves(evaluation, "contrast", "iou").medians == []


def test_scatter_has_every_photo_of_both_signs(folder: Path, evaluation: DetectorEvaluation) -> None:
    data = detector_figures.scatters(evaluation)
    assert [one.label for one in data] == ["good", "random"]
    rows = [row for row in detector_evaluations.read_rows(folder / "thresholds.csv") if row["run"] == "random"]
    for points, sign in zip(data[1].signs, ("negative", "positive"), strict=True):
        np.testing.assert_array_equal(points.human, [float(row[f"human_{sign}"]) for row in rows])
        np.testing.assert_array_equal(points.predicted, [float(row[f"predicted_{sign}"]) for row in rows])
        np.testing.assert_array_equal(points.never, [row[f"never_{sign}"] == "1" for row in rows])
        assert points.constant == summary_of(folder)["human"]["constant"][sign]
    assert data[0].human_limit == data[1].human_limit > max(points.human.max() for points in data[0].signs)


def test_error_figure_has_the_constant_once_a_sign(evaluation: DetectorEvaluation) -> None:
    rows = detector_figures.error_rows(evaluation)
    assert list(rows) == ["both", "negative", "positive"]
    for sign, found in rows.items():
        assert [row.detector for row in found] == [None, 0, 1]
        assert found[0].difference is None
        assert found[1].difference == evaluation.summary.detectors[0].errors(sign).of_difference()


def test_answers_are_measured_inside_the_mask(evaluation: DetectorEvaluation) -> None:
    answer, mask = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)
    mask[:2], answer[:1, :, 0], answer[2:, :, 1] = 255, 255, 255
    assert detector_strips.in_mask(answer, mask) == "− 0.50   + 0.00"
    assert detector_strips.in_mask(answer, 0 * mask) == ""
    assert evaluation.strips is not None
    panels = detector_strips.panels(evaluation, evaluation.strips.strips[0])
    assert [len(row) for _, row in panels.rows] == [5, 5, 5]
    assert [panel.caption for panel in panels.rows[0][1]][:3] == ["−0.75 stops", "−0.25 stops", "unchanged"]
    assert [heading.split(":")[0] for heading, _ in panels.rows[1:]] == ["good", "random"]


def test_long_names_keep_both_ends() -> None:
    assert shortened("ptc") == "ptc"
    assert shortened("a" * 30 + "b" * 30, 10) == "aaaa…bbbbb"


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (-0.03, -0.01, "The detector beats a constant threshold on 47 photos"),
        (0.01, 0.03, "The detector is worse than a constant threshold on 47 photos"),
        (-0.01, 0.03, "The detector does no better than a constant threshold on 47 photos"),
        (None, None, "The detector has not been shown to beat a constant threshold on 47 photos"),
    ],
)
def test_headline_follows_the_interval(tmp_path: Path, low: float | None, high: float | None, says: str) -> None:
    folder = detector_evaluations.write(tmp_path / "e", {"mine": 0.3}, strips=0)
    edit_detector(folder, "both", difference_low=low, difference_high=high)
    summary = summary_of(folder)
    better = high is not None and high < 0
    summary["detectors"][0]["verdict"] = "better than the constant" if better else "not shown to beat the constant"
    evaluations.write_json(folder / "summary.json", summary)
    sentence, numbers = detector_chapter.headline(detector_collect.read(folder))
    assert sentence == says
    assert "The constant (median of 188 training photos) errs by" in numbers
    assert ("without an interval" in numbers) == (low is None)
    assert "flattered" not in numbers


def test_headline_of_several_counts_the_better(tmp_path: Path) -> None:
    both = detector_collect.read(detector_evaluations.write(tmp_path / "both", TWO, strips=0))
    sentence, numbers = detector_chapter.headline(both)
    assert sentence == "1 of 2 detectors beat a constant threshold on 47 photos: good"
    assert "The best of them, good, chosen here and so slightly flattered" in numbers
    none = detector_collect.read(detector_evaluations.write(tmp_path / "none", {"a": 0, "b": 0}, strips=0))
    assert detector_chapter.headline(none)[0] == "None of 2 detectors beats a constant threshold on 47 photos"


def test_headline_doubts_a_rank_correlation_around_zero(tmp_path: Path) -> None:
    folder = detector_evaluations.write(tmp_path / "e", strips=0)
    edit_detector(folder, "both", rank_correlation=0.1, rank_low=-0.1, rank_high=0.3)
    assert "cannot be told from none" in detector_chapter.headline(detector_collect.read(folder))[1]
    edit_detector(folder, "both", rank_correlation=None, rank_low=None, rank_high=None)
    assert "no rank correlation" in detector_chapter.headline(detector_collect.read(folder))[1]


def test_the_table_of_separation_has_the_areas_of_the_file(folder: Path, tmp_path: Path) -> None:
    html.write([folder], tmp_path / "report")
    (table,) = (tmp_path / "report/tables").glob("separation-*.csv")
    rows = detector_evaluations.read_rows(folder / "offsets.csv")
    areas = {(row["run"], row["transform"], float(row["offset_stops"])): row["auc"] for row in rows}
    found = detector_evaluations.read_rows(table)
    assert len(found) == 4 and "auc_at_0" not in found[0]
    for row, transform in zip(found, ("exposure", "exposure", "contrast", "contrast"), strict=True):
        for offset in (-1, -0.2, 0.5):
            assert float(row[f"auc_at_{offset:g}"]) == float(areas[row["run"], transform, offset])


TABLES = {"errors", "thresholds", "detection", "separation"}


def test_page_is_complete_and_offline(folder: Path, tmp_path: Path) -> None:
    index = html.write([folder], tmp_path / "report")
    page, source = Page(index), index.read_text(encoding="utf-8")
    assert not page.all("link", "iframe")
    assert all("src" not in script for script in page.all("script"))
    assert "://" not in source
    linked = [attributes["src"] for attributes in page.all("img")]
    assert len(linked) == 8  # errors, two scatters, two figures for each transform, one strip
    assert set(linked) == {f"figures/{path.name}" for path in (index.parent / "figures").iterdir()}
    assert all(attributes["alt"] for attributes in page.all("img"))
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert all(a["href"][1:] in ids for a in page.all("a") if a["href"].startswith("#"))
    assert len(page.all("h1")) == 1
    for words in (
        "1 of 2 detectors beat a constant threshold",
        "Constant: 0.231 and 0.209 stops (negative, positive) for every photo, median of 188 training photos",
        "0.1148",
        "red where it says darkened, green where brightened",
        "How the images were chosen: evenly spaced over the photos",
        "people −0.21 and +0.18; good −0.30 and +0.20",
        "scan of 0 to 1 stop in steps of 0.02",
        "epoch-0005-step-000100",
        "optim.lr: 0.0001",
        "Soft F1",
    ):
        assert words in page.text, words
    for words in ("MSE", "The field", "identity only", "LPIPS", "nan"):
        assert words not in page.text, words


def test_the_page_says_how_it_was_made(folder: Path, tmp_path: Path) -> None:
    assert "not recorded, as" in Page(html.write([folder], tmp_path / "report")).text
    evaluations.write_json(folder / "provenance.json", evaluations.PROVENANCE)
    text = Page(html.write([folder], tmp_path / "report")).text
    for words in (evaluations.PROVENANCE["command"], evaluations.PROVENANCE["commit"], "0.067 CPU hours"):
        assert words in text, words
    assert "not recorded, as" not in text


def test_without_human_thresholds_the_page_says_so(tmp_path: Path) -> None:
    folder = detector_evaluations.write(tmp_path / "e", human=False)
    index = html.write([folder], tmp_path / "report")
    text = Page(index).text
    assert "No human thresholds here" in text
    assert "none of them with human thresholds" in text
    assert "nan" not in text
    assert {path.name.split("-")[0] for path in (index.parent / "figures").iterdir()} == {
        "detection",
        "overlap",
        "strip",
    }
    assert {path.name.split("-")[0] for path in (index.parent / "tables").iterdir()} == TABLES - {"errors"}


def test_both_kinds_share_a_page(tmp_path: Path) -> None:
    harmonisers = evaluations.write(tmp_path / "harmonisers", models=("ptc_dih",), strips=0)
    folder, twin = (detector_evaluations.write(tmp_path / name, {"mine": 0.9}, strips=0) for name in ("one", "twin"))
    alone = html.write([harmonisers], tmp_path / "alone")
    index = html.write([folder, harmonisers, twin], tmp_path / "report")
    page = Page(index)
    assert page.text.index("beats doing nothing") < page.text.index("The detector beats a constant")
    for words in ("Sample at 64 px", "Detectors on Thresholds at 64 px", "Detectors on Thresholds, twin", "The field"):
        assert words in page.text, words
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(a["href"][1:] in ids for a in page.all("a") if a["href"].startswith("#"))
    for part in ("tables", "figures"):
        for path in (alone.parent / part).iterdir():
            assert (index.parent / part / path.name).read_bytes() == path.read_bytes(), path.name
    assert "etector" not in Page(alone).text


def test_detectors_are_not_compared_with_an_earlier_evaluation(folder: Path, tmp_path: Path) -> None:
    harmonisers = evaluations.write(tmp_path / "harmonisers")
    for now, before in ((harmonisers, folder), (folder, harmonisers)):
        with pytest.raises(UserError, match="compares evaluations of harmonisers"):
            html.write([now], tmp_path / "report", against=before)


def test_names_are_escaped_and_no_formulas(tmp_path: Path) -> None:
    folder = detector_evaluations.write(tmp_path / "e", {"a_$\\frac$<script>alert(1)": 0.2}, strips=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = Page(html.write([folder], tmp_path / "report"))
    assert len(page.all("script")) == 2, "those of the page"


def test_numbers_may_be_missing(tmp_path: Path) -> None:
    """Few photos have no intervals; a detector that never varies has no rank correlation; measures may be empty."""
    folder = detector_evaluations.write(tmp_path / "e", images=3)
    for sign in ("negative", "positive", "both"):
        keys = [f"{one}_{end}" for one in ("error", "constant", "difference", "rank") for end in ("low", "high")]
        edit_detector(folder, sign, **dict.fromkeys([*keys, "rank_correlation"]))
    path = folder / "offsets.csv"
    rows = detector_evaluations.read_rows(path)
    emptied = [
        [row[key] if key in OFFSETS[:5] else "" for key in OFFSETS] for row in rows if row["offset_stops"] != "0.00"
    ]
    detector_evaluations.write_rows(path, OFFSETS, emptied)
    text = Page(html.write([folder], tmp_path / "report")).text
    assert "has not been shown to beat" in text
    assert "nan" not in text


def test_a_failure_leaves_the_earlier_report_whole(tmp_path: Path) -> None:
    folder, out = detector_evaluations.write(tmp_path / "evaluation"), tmp_path / "report"
    before = html.write([folder], out).read_bytes()
    Image.new("L", (3, 3)).save(folder / "strips" / "0000-mask.png")
    with pytest.raises(UserError, match="0000-mask"):
        html.write([folder], out)
    assert (out / "index.html").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluation", "report"]


def no_offsets(folder: Path) -> None:
    (folder / "offsets.csv").unlink()


def other_schema(folder: Path) -> None:
    evaluations.edit_summary(folder, schema=2)


def no_detectors(folder: Path) -> None:
    evaluations.edit_summary(folder, detectors=[])


def word_in_the_summary(folder: Path) -> None:
    edit_detector(folder, "both", error="small")


def lost_sign(folder: Path) -> None:
    summary = summary_of(folder)
    summary["detectors"][0]["thresholds"].pop()
    evaluations.write_json(folder / "summary.json", summary)


def false_verdict(folder: Path) -> None:
    summary = summary_of(folder)
    summary["detectors"][1]["verdict"] = "better than the constant"
    evaluations.write_json(folder / "summary.json", summary)


def other_error(folder: Path) -> None:
    edit_detector(folder, "negative", error=0.5)


def change_rows(folder: Path, name: str, change: Callable[[list[list[str]]], list[list[str]]]) -> None:
    columns = THRESHOLDS if name == "thresholds.csv" else OFFSETS
    rows = [list(row.values()) for row in detector_evaluations.read_rows(folder / name)]
    detector_evaluations.write_rows(folder / name, columns, change(rows))


def lost_row(folder: Path) -> None:
    change_rows(folder, "thresholds.csv", lambda rows: rows[:-1])


def repeated_row(folder: Path) -> None:
    change_rows(folder, "thresholds.csv", lambda rows: [*rows, rows[-1]])


def lost_run(folder: Path) -> None:
    change_rows(folder, "thresholds.csv", lambda rows: [row for row in rows if row[1] == "good"])


def lost_curve(folder: Path) -> None:
    change_rows(folder, "offsets.csv", lambda rows: [row for row in rows if row[0] == "good"])


def repeated_offset(folder: Path) -> None:
    change_rows(folder, "offsets.csv", lambda rows: [*rows, rows[0]])


def transform_with_a_path(folder: Path) -> None:
    change_rows(folder, "offsets.csv", lambda rows: [[row[0], "../x", *row[2:]] for row in rows])


def cut_offsets(folder: Path) -> None:
    path = folder / "offsets.csv"
    path.write_text(path.read_text()[:-40])


def word_in_a_number(folder: Path) -> None:
    change_rows(folder, "offsets.csv", lambda rows: [[*rows[0][:-1], "many"], *rows[1:]])


def lost_picture(folder: Path) -> None:
    (folder / "strips" / "0000-good-2.png").unlink()


def lost_offset(folder: Path) -> None:
    path = folder / "strips" / "strips.json"
    values = json.loads(path.read_text())
    values["strips"][0]["offsets"].pop()
    evaluations.write_json(path, values)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (no_offsets, "without offsets.csv"),
        (other_schema, "has schema 2"),
        (no_detectors, "must name each detector once"),
        (word_in_the_summary, "summary.json is not as expected"),
        (lost_sign, "must have the thresholds negative, positive, both of good"),
        (false_verdict, "says of random 'better than the constant'"),
        (other_error, "states a negative error of 0.5000 stops for run good"),
        (lost_row, "47 images of Thresholds, but thresholds.csv has 46 of run random"),
        (repeated_row, "repeats Thresholds/0046 of run random"),
        (lost_run, "must have rows of good, random, but has those of good"),
        (lost_curve, "must have rows of good, random, but has those of good"),
        (repeated_offset, "must have an offset of its own, but has '-1.00'"),
        (transform_with_a_path, "has the transform '../x'"),
        (cut_offsets, "cells instead of 9"),
        (word_in_a_number, "'many' is not a number"),
        (lost_picture, "'0000-good-2.png'"),
        (lost_offset, "a picture for each of the 4 offsets of 0000"),
    ],
)
def test_damage_is_refused_in_one_line(folder: Path, tmp_path: Path, damage, says: str) -> None:
    damage(folder)
    with pytest.raises(UserError) as caught:
        html.write([folder], tmp_path / "report")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report").exists()
