"""C_p against C_s: which runs are compared, what the tables and the CSV file hold, and what the figure shows."""

import csv
from dataclasses import replace
from math import isnan
from pathlib import Path

import evaluations
import numpy as np
import pytest
from PIL import Image

from nrh_dist.report import difference_figures, differences, figures, html, statistics, tables
from nrh_dist.report.collect import read
from nrh_dist.report.differences import Pair
from nrh_dist.report.sections import Section, sections

MODELS = ("dih_m", "two_stage")


def write(folder: Path, count: int = 60, dataset: str = "COCOExp", lpips: str | None = None) -> Path:
    return evaluations.write(folder, {dataset: count}, MODELS, strips=0, lpips=lpips)


@pytest.fixture
def section(tmp_path: Path) -> Section:
    return sections([read(write(tmp_path / "e"))])[0]


@pytest.fixture
def pair(section: Section) -> Pair:
    return differences.pairs(section)[0]


def with_difference(pair: Pair, values: list[float] | np.ndarray) -> Pair:
    """The pair with C_s = 100 and C_p = 100 + ``values``."""
    ones = np.full(len(pair.true), 100.0)
    return Pair(replace(pair.predicted, mse=ones + values), replace(pair.true, mse=ones))


def test_c_s_is_the_true_masks_run_of_the_same_two_stage_run(section: Section) -> None:
    """Also where another dih_m was evaluated, and where the images come in another order."""
    assert [result.run for result in section.results if result.model == "dih_m"] == [
        "dih_m-seed0",
        "two_stage-seed0-true-masks",
    ]
    assert section.labels["two_stage-seed0-true-masks"] == "DIH-M of two_stage-seed0"
    (pair,) = differences.pairs(section)
    assert (pair.predicted.run, pair.true.run) == ("two_stage-seed0", "two_stage-seed0-true-masks")
    turned = [
        replace(result, names=result.names[::-1], mse=result.mse[::-1]) if result.run == pair.true.run else result
        for result in section.results
    ]
    (again,) = differences.pairs(replace(section, results=turned))
    np.testing.assert_array_equal(again.difference("mse"), pair.difference("mse"))
    without = [result for result in section.results if not result.run.endswith("true-masks")]
    alone = replace(section, results=without)
    assert differences.pairs(alone) == []
    assert tables.table_1(alone) is None


def test_table_1_is_ours_beside_the_papers(section: Section, pair: Pair) -> None:
    table = tables.table_1(section)
    assert [row.label for row in table.rows] == ["C_s: true masks", "C_p: predicted masks", "C_p − C_s"]
    ours, theirs = np.array([row.values[:3] for row in table.rows]), [row.values[3:] for row in table.rows]
    np.testing.assert_allclose(ours[0], [pair.true.mse.mean(), pair.true.psnr.mean(), pair.true.lpips.mean()])
    np.testing.assert_allclose(ours[2], ours[1] - ours[0])
    assert theirs[:2] == [[19.55, 35.81, 0.0227], [22.65, 35.18, 0.0292]]
    np.testing.assert_allclose(theirs[2], [3.10, -0.63, 0.0065])


def test_table_1_without_lpips_and_without_the_papers_numbers(tmp_path: Path) -> None:
    other = sections([read(write(tmp_path / "e", dataset="Sample", lpips="missing"))])[0]
    table = tables.table_1(other)
    assert [column.key for column in table.columns] == ["mse", "psnr", "lpips"]
    assert all(isnan(row.values[2]) for row in table.rows)


def test_bins_weight_to_the_overall_difference(pair: Pair) -> None:
    overall, *bins = differences.by_bin(pair)
    counts = np.array([one.count for one in bins])
    assert counts.sum() == overall.count == 60
    for mine in (lambda one: one.mse.value, lambda one: one.psnr, lambda one: one.lpips, lambda one: one.better1):
        weighted = statistics.weighted_mean(np.array([mine(one) for one in bins]), counts)
        assert weighted == pytest.approx(mine(overall))
    difference = pair.predicted.mse - pair.true.mse
    assert overall.mse.value == pytest.approx(difference.mean())
    for one in bins:
        inside = np.floor(10 * pair.true.area_fraction) == int(one.label.split("-")[0]) / 10
        assert (one.count, one.mse.value) == (inside.sum(), pytest.approx(difference[inside].mean()))


def test_better_and_worse_are_counted_beyond_1(pair: Pair) -> None:
    values = np.zeros(60)
    values[:6] = (1.0, -1.0, 1.5, 2.0, 3.0, -1.5)
    overall = differences.by_bin(with_difference(pair, values))[0]
    assert (overall.worse1, overall.better1) == (3 / 60, 1 / 60)


def test_interval_of_an_equal_difference_is_exact_and_its_sign_is_that_of_c_p_minus_c_s(pair: Pair) -> None:
    for value, verdict in ((2.5, 1), (-2.5, -1), (0.0, 0)):
        found = differences.by_bin(with_difference(pair, np.full(60, value)))[0].mse
        assert found.interval == pytest.approx((value, value))
        assert found.verdict == verdict
    noise = np.tile([5.0, -5.0], 30)
    assert differences.by_bin(with_difference(pair, noise))[0].mse.verdict == 0


def test_interval_draws_photos_not_composites(pair: Pair) -> None:
    alone = np.array([f"c{i}_0_0" for i in range(60)])
    shared = np.array([f"c{i // 5}_{i}_0" for i in range(60)])
    values = np.repeat(np.random.default_rng(0).normal(0, 10, 12), 5)
    found = with_difference(pair, values)
    width = []
    for names in (alone, shared):
        named = Pair(replace(found.predicted, names=names), replace(found.true, names=names))
        width.append(np.ptp(differences.by_bin(named)[0].mse.interval))
    assert width[1] > 1.5 * width[0]
    few = replace(found.predicted, names=np.array([f"c{i % 9}_{i}_0" for i in range(60)]))
    assert differences.by_bin(Pair(few, found.true))[0].mse.interval is None


def test_images_without_an_error_on_one_side_are_left_out(pair: Pair) -> None:
    mse = pair.predicted.mse.copy()
    mse[:5] = np.nan
    holed = Pair(replace(pair.predicted, mse=mse), pair.true)
    overall = differences.by_bin(holed)[0]
    assert overall.count == 55
    assert overall.mse.value == pytest.approx((mse - pair.true.mse)[5:].mean())
    nothing = Pair(replace(pair.predicted, mse=np.full(60, np.nan)), pair.true)
    (empty,) = differences.by_bin(nothing)
    assert empty.count == 0
    assert isnan(empty.mse.value)


def test_csv_holds_a_line_an_image(pair: Pair, tmp_path: Path) -> None:
    differences.write_images([pair], tmp_path / "d.csv")
    with (tmp_path / "d.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == differences.CSV_COLUMNS
    assert [row["name"] for row in rows] == [*pair.predicted.names]
    for row, c_s, c_p in zip(rows, pair.true.mse, pair.predicted.mse, strict=True):
        assert float(row["mse_c_s"]) == pytest.approx(c_s, abs=1e-6)
        assert float(row["difference"]) == pytest.approx(c_p - c_s, abs=2e-6)


def test_points_know_their_side(pair: Pair) -> None:
    values = np.zeros(60)
    values[:4] = (5.0, -5.0, 0.9, -0.9)
    assert difference_figures.points(with_difference(pair, values), "mse").side[:5].tolist() == [1, -1, 0, 0, 0]
    psnr = replace(pair.predicted, psnr=pair.true.psnr + 3)
    assert set(difference_figures.points(Pair(psnr, pair.true), "psnr").side) == {-1}  # a higher PSNR is better
    means = difference_figures.points(pair, "mse").means
    assert sum(value * count for _, value, count in means) / 60 == pytest.approx(pair.difference("mse").mean())


def test_figure_draws_all_three_sides_and_hard_cases(pair: Pair, tmp_path: Path) -> None:
    def colours(name: str, values: np.ndarray, metric: str = "mse") -> set[tuple[int, ...]]:
        difference_figures.draw(difference_figures.points(with_difference(pair, values), metric), tmp_path / name)
        with Image.open(tmp_path / name) as image:
            return {colour for _, colour in image.convert("RGB").getcolors(1_000_000)}

    mixed = colours("mixed.png", np.linspace(-400, 400, 60))
    assert any(r > 180 and b < 120 for r, g, b in mixed)  # orange
    assert any(b > 150 and r < 90 for r, g, b in mixed)  # blue
    none = colours("none.png", np.zeros(60))
    assert not any(abs(r - b) > 60 for r, g, b in none)
    assert len(none) > 5


def test_page_shows_the_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "DOTS_PER_INCH", 40)
    index = html.write([write(tmp_path / "e")], tmp_path / "report")
    text = index.read_text(encoding="utf-8")
    assert "The predicted mask against the true one" in text
    assert "With the predicted mask the mean MSE is higher than that with the true mask: +" in text
    assert {path.name for path in (index.parent / "tables").iterdir()} >= {
        "table1-coco-exp.csv",
        "difference-bins-coco-exp.csv",
        "differences-coco-exp.csv",
    }
    assert [path.name for path in sorted((index.parent / "figures").glob("difference-*"))] == [
        f"difference-{metric}-coco-exp-1.png" for metric in ("lpips", "mse", "psnr")
    ]
    without = html.write([evaluations.write(tmp_path / "w", {"COCOExp": 20}, strips=0)], tmp_path / "plain")
    assert "The predicted mask against" not in without.read_text(encoding="utf-8")
