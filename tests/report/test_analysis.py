"""What a section's analyses hold: the sums behind every table by group, and the data that lacks something."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from math import isnan
from pathlib import Path

import evaluations
import numpy as np
import pytest

from nrh_dist import failures
from nrh_dist.report import (
    analysis,
    bin_figures,
    categories,
    detected,
    difference_figures,
    failure_table,
    figures,
    means_chapter,
    paired_chapter,
    shift,
    size_chapter,
    tables,
    where,
)
from nrh_dist.report.collect import read
from nrh_dist.report.result import Result
from nrh_dist.report.sections import Section, sections
from nrh_dist.report.shown import Analysis, Row, Table
from nrh_dist.report.statistics import weighted_mean

MODELS = ("dih_m", "dih_nm", "ptc_dih", "gated")
ALL = [
    "means", "pairs", "size", "shift", "categories", "where", "detected", "failures", "distributions",
]  # fmt: skip


@pytest.fixture(autouse=True)
def small_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks at the pictures of these tests."""
    monkeypatch.setattr(figures, "DOTS_PER_INCH", 40)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests whose pictures are drawn from nothing that others do not draw: most of the time goes into them."""

    def draw(data: object, path: Path) -> None:
        path.write_bytes(bytes(2000))

    for module, name in ((bin_figures, "draw"), (difference_figures, "draw"), (figures, "draw_ridges")):
        monkeypatch.setattr(module, name, draw)


@pytest.fixture(scope="module")
def section(tmp_path_factory: pytest.TempPathFactory) -> Section:
    folder = tmp_path_factory.mktemp("analysis") / "e"
    evaluations.write(folder, {"COCOExp": 120}, MODELS, strips=0, lpips=None, further=True)
    return sections([read(folder)])[0]


def changed(section: Section, change: Callable[[Result], Result]) -> Section:
    return replace(section, results=[change(result) for result in section.results])


def run(section: Section, folder: Path) -> list[Analysis]:
    """The analyses, with their files, and not one warning."""
    for part in ("tables", "figures"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = analysis.analyses(section, folder)
    for one in found:
        assert one.tables or one.charts
        for table in one.tables:
            assert table.name.endswith(section.slug)
            assert all(len(row.values) == len(table.columns) for row in table.rows)
            assert {(folder / "tables" / f"{table.name}.{kind}").is_file() for kind in ("csv", "md", "tex")} == {True}
        for picture in one.charts:
            assert (folder / picture.file).stat().st_size > 1000
            assert picture.alt and picture.caption
            assert "nan" not in f"{picture.alt} {picture.caption}".split()
    assert len({one.slug for one in found}) == len(found)
    names = [table.name for one in found for table in one.tables]
    assert len(set(names)) == len(names)
    return found


def column(table: Table, key: str) -> int:
    return [one.key for one in table.columns].index(key)


def row_of(table: Table, run: str, group: str = "") -> Row:
    return next(row for row in table.rows if row.run == run and row.group.startswith(group))


def test_every_analysis_is_made(section: Section, tmp_path: Path) -> None:
    found = run(section, tmp_path)
    assert [one.slug for one in found] == ALL
    assert {picture.file for one in found for picture in one.charts} == {
        f"figures/{path.name}" for path in (tmp_path / "figures").iterdir()
    }


@pytest.mark.usefixtures("undrawn")
def test_an_older_evaluation_has_the_analyses_that_its_columns_allow(tmp_path: Path) -> None:
    old = sections([read(evaluations.write(tmp_path / "e", {"HCOCO": 40, "HFlickr": 20}))])[0]
    found = run(old, tmp_path)
    assert [one.slug for one in found] == ["means", "pairs", "size", "distributions"]
    assert [table.name for table in found[0].tables] == ["table2-iharmony4", "intervals-iharmony4", "subsets-iharmony4"]


# What each table by group says of a run: its counts, its means and the total they must weigh to.


def of_columns(section: Section, table: Table, run: str) -> tuple[np.ndarray, np.ndarray]:
    counts = next(row.values for row in table.rows if row.label == "Images")
    return np.array(counts), np.array(row_of(table, run).values)


def of_rows(section: Section, table: Table, run: str) -> tuple[np.ndarray, np.ndarray]:
    key = "identity_mse" if run == "identity" else f"{run}_mse"
    rows = [row for row in table.rows if row.label != "All"]
    return np.array([row.values[0] for row in rows]), np.array([row.values[column(table, key)] for row in rows])


def of_subsets(section: Section, table: Table, run: str) -> tuple[np.ndarray, np.ndarray]:
    counts = [int(column.group.split(",")[1].split()[0]) for column in table.columns[::2]]
    return np.array(counts), np.array(row_of(table, run).values[::2])


BINNED = {
    "deciles": (tables.table_3, of_columns),
    "field": (size_chapter.field_table, lambda *found: tuple(one[:-1] for one in of_columns(*found))),
    "shift": (shift.table, of_rows),
    "categories": (categories.table, of_rows),
    "subsets": (tables.subsets, of_subsets),
}


@pytest.mark.parametrize("kind", BINNED)
@pytest.mark.parametrize("seed", range(3))
def test_weighting_by_counts_gives_the_total_of_every_table_by_group(kind: str, seed: int, tmp_path: Path) -> None:
    folder = evaluations.write(
        tmp_path / "e", {"HCOCO": 40 + seed, "HFlickr": 17}, MODELS, strips=0, further=True, seed=seed
    )
    one = sections([read(folder)])[0]
    make, take = BINNED[kind]
    table = make(replace(one, collection=None))
    for result in one.results:
        counts, means = take(one, table, result.run)
        assert counts.sum() == len(result)
        assert weighted_mean(means, counts) == pytest.approx(result.mse.mean())


def test_field_bins_weight_to_all_for_each_metric_also_where_values_are_missing(section: Section) -> None:
    def holed(result: Result) -> Result:
        fmse, area = result.fmse.copy(), result.area_fraction.copy()
        fmse[:30], area[5] = np.nan, np.nan
        return replace(result, fmse=fmse, area_fraction=area)

    table = size_chapter.field_table(changed(section, holed))
    for title in ("MSE", "PSNR, dB", "fMSE"):
        rows = [row for row in table.rows if row.group == title]
        *counts, total = rows[0].values
        assert sum(counts) == total == (90 if title == "fMSE" else 119)
        for row in rows[1:]:
            *means, overall = row.values
            assert weighted_mean(np.array(means), np.array(counts)) == pytest.approx(overall)


def test_rows_of_groups_hold_the_change_and_the_best_in_bold(section: Section) -> None:
    table = shift.table(section)
    result = section.results[3]
    chosen = (result.shift_stops >= 0.22) & (result.shift_stops < 0.5)
    row = next(row for row in table.rows if row.label == "0.22 to 0.5")
    mse, before = result.mse[chosen].mean(), result.identity_mse[chosen].mean()
    assert row.values[:2] == [chosen.sum(), pytest.approx(before)]
    place = column(table, f"{result.run}_mse")
    assert row.values[place : place + 2] == pytest.approx([mse, 100 * (mse / before - 1)])
    fair = [1, *(column(table, f"{one.run}_mse") for one in section.results[2:])]  # not dih_m, which sees the mask
    assert row.bold == {min(fair, key=lambda i: row.values[i])}


def test_a_change_is_against_the_input_of_the_same_images(section: Section) -> None:
    def holed(result: Result) -> Result:
        mse = result.identity_mse / 2
        mse[::2] = np.nan
        return replace(result, mse=mse) if result.model == "gated" else result

    table = categories.table(changed(section, holed))
    place = column(table, "gated-seed0_change_percent")
    assert [row.values[place] for row in table.rows] == pytest.approx([-50] * len(table.rows))


def test_how_sure_holds_medians_and_intervals(section: Section) -> None:
    table = means_chapter.how_sure(section)
    result = section.results[3]
    count, mean, low, high, median, first, third = row_of(table, result.run, "LPIPS").values
    assert (count, mean, median) == (120, pytest.approx(result.lpips.mean()), pytest.approx(np.median(result.lpips)))
    assert low < mean < high and first < median < third
    assert {row.group for row in table.rows} == {"MSE", "PSNR, dB", "fMSE", "LPIPS"}


def test_other_peaks_are_shown_where_they_were_measured(section: Section) -> None:
    table = means_chapter.psnr_conventions(section)
    ours, dovenet, issam = row_of(table, "ptc_dih-seed0").values
    assert (dovenet, issam) == (pytest.approx(ours - 0.4), pytest.approx(ours - 0.2))


def test_runs_are_compared_with_doing_nothing_and_with_the_best(section: Section) -> None:
    found = paired_chapter.comparisons(section)
    assert [(one.one.model, one.other.model) for one in found] == [
        *((model, "identity") for model in MODELS),
        *((model, "ptc_dih") for model in MODELS if model != "ptc_dih"),
    ]
    table = paired_chapter.table(section, found)
    keys = [one.key for one in table.columns]
    rows = [dict(zip(keys, row.values, strict=True)) for row in table.rows]
    best = section.results[3]
    assert rows[2]["mse_difference"] == pytest.approx((best.mse - section.identity.mse).mean())
    assert rows[2]["mse_difference_high"] < 0
    assert all(row["p_holm"] >= row["p"] for row in rows)
    assert all(row["photos"] == 60 for row in rows)
    assert any("not independent" in note for note in table.notes)
    assert any("chosen on these images and so is slightly flattered" in note for note in table.notes)
    alone = paired_chapter.table(section, found[:1])
    assert not any("chosen" in note for note in alone.notes), "against doing nothing, nobody chose"


def test_the_best_run_is_one_with_an_error_and_without_the_mask(section: Section) -> None:
    def best(*spoilt: str) -> str | None:
        one = changed(section, lambda result: without("mse")(result) if result.model in spoilt else result)
        found = paired_chapter.best_without_the_mask(one)
        return found and found.model

    assert [best(), best("dih_nm"), best("ptc_dih"), best("dih_nm", "ptc_dih", "gated")] == [
        "ptc_dih", "ptc_dih", "gated", None
    ]  # fmt: skip


def test_where_shows_the_median_correction_and_the_mean_of_the_rest(section: Section) -> None:
    table = where.table(section)
    result = section.results[1]
    row = row_of(table, result.run)
    assert row.values[column(table, "correction")] == pytest.approx(np.median(result.correction))
    assert row.values[column(table, "change_outside")] == pytest.approx(100 * result.change_outside.mean())
    assert isnan(row_of(table, "identity").values[column(table, "change_outside")])


def test_gain_follows_the_detector(section: Section) -> None:
    """A run that halves the error of what it found and leaves the rest."""

    def change(result: Result) -> Result:
        found = np.linspace(0, 1, len(result))
        return replace(result, detected=found, mse=result.identity_mse * np.where(found > 0.6, 0.5, 1.0))

    one = changed(section, change)
    runs = [result for result in one.results if result.model == "ptc_dih"]
    (line,) = detected.gain_lines(one, runs).lines
    assert [round(value.value, 6) for value in line.values] == [0, 0, 0, -50, -50]
    assert line.x == sorted(line.x) and line.counts == [24] * 5
    table = detected.gains(one, runs)
    assert [row.values[0] for row in table.rows] == [24] * 5
    assert [row.values[2] for row in table.rows[:3]] == [0, 0, 0]
    assert table.rows[4].values[5] > 90


def test_failures_are_counted_by_their_rules(section: Section) -> None:
    runs = [result for result in section.results if result.model in ("dih_m", "ptc_dih")]
    table = failure_table.table(section, runs)
    labels = [row.label for row in table.rows]
    assert labels == [*failures.RULES, failures.SUCCESS, failures.NOTHING_TO_CORRECT]
    counts = np.array([row.values[::2] for row in table.rows])
    assert counts.sum(axis=0).tolist() == [120, 120]
    assert counts[0].tolist() == [0, counts[0, 1]] and counts[0, 1] > 0  # dih_m has no detector
    shares = np.array([row.values[1::2] for row in table.rows[:-1]])
    np.testing.assert_allclose(shares.sum(axis=0), 100)


# Hard cases: data that lacks something makes a page that lacks it, never an error or a warning.


def without(*names: str) -> Callable[[Result], Result]:
    return lambda result: replace(result, **{name: np.full(len(result), np.nan) for name in names})


@pytest.mark.usefixtures("undrawn")
def test_lpips_missing(section: Section, tmp_path: Path) -> None:
    found = run(changed(section, without("lpips")), tmp_path)
    assert [one.slug for one in found] == ALL
    assert not any("lpips" in picture.file for one in found for picture in one.charts)
    assert not any(row.group == "LPIPS" for row in found[0].tables[1].rows)


def test_a_run_that_is_nan_for_all_images(section: Section, tmp_path: Path) -> None:
    """The best run of the others is found; the spoilt one keeps its row in Table 2."""
    spoilt = without("mse", "psnr", "fmse", "lpips", "correction", "change_outside", "mse_outside", "mse_edge")
    one = changed(section, lambda result: spoilt(result) if result.model == "ptc_dih" else result)
    found = {part.slug: part for part in run(one, tmp_path)}
    assert list(found) == ALL
    assert not any(row.run == "ptc_dih-seed0" for row in found["pairs"].tables[0].rows)
    assert isnan(row_of(found["means"].tables[0], "ptc_dih-seed0").values[0])
    assert "120 images without a value" in " ".join(found["means"].tables[0].notes)
    assert found["pairs"].tables[0].rows[-1].group.startswith("against Gated")


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_is_nan_for_some_images(section: Section, tmp_path: Path) -> None:
    def holed(result: Result) -> Result:
        mse = result.mse.copy()
        mse[::3] = np.nan
        return replace(result, mse=mse) if result.model == "ptc_dih" else result

    found = {part.slug: part for part in run(changed(section, holed), tmp_path)}
    keys = [one.key for one in found["pairs"].tables[0].columns]
    cells = dict(zip(keys, row_of(found["pairs"].tables[0], "ptc_dih-seed0").values, strict=True))
    result = section.results[3]
    kept = np.arange(120) % 3 > 0
    assert cells["images"] == 80
    assert cells["mse_difference"] == pytest.approx((result.mse - result.identity_mse)[kept].mean())


def test_identity_alone(section: Section, tmp_path: Path) -> None:
    found = run(replace(section, results=section.results[:1]), tmp_path)
    assert [one.slug for one in found] == ["means", "size", "shift", "categories", "where", "distributions"]


def test_one_image(section: Section, tmp_path: Path) -> None:
    found = {part.slug: part for part in run(changed(section, lambda result: result.rows([7])), tmp_path)}
    assert list(found) == ALL
    keys = [one.key for one in found["pairs"].tables[0].columns]
    cells = dict(zip(keys, found["pairs"].tables[0].rows[0].values, strict=True))
    assert cells["images"] == cells["photos"] == 1
    assert all(isnan(cells[key]) for key in ("p", "p_holm", "mse_difference_low", "mse_difference_high"))
    assert [row.values[0] for row in found["categories"].tables[0].rows] == [1, 1]


def test_all_masks_empty(section: Section, tmp_path: Path) -> None:
    inside = ("fmse", "chroma_drift", "correction", "detected", "mse_edge")

    def empty(result: Result) -> Result:
        return replace(without(*inside)(result), area_fraction=np.zeros(len(result)))

    found = {part.slug: part for part in run(changed(section, empty), tmp_path)}
    assert "detected" not in found and "failures" not in found
    table = found["size"].tables[1]
    assert {row.group for row in table.rows} == {"MSE", "PSNR, dB"}
    assert table.rows[0].values == [120, 0, 0, 120]


@pytest.mark.usefixtures("undrawn")
def test_no_area_is_known(section: Section, tmp_path: Path) -> None:
    found = [one.slug for one in run(changed(section, without("area_fraction")), tmp_path)]
    assert found == [slug for slug in ALL if slug != "size"]


@pytest.mark.usefixtures("undrawn")
def test_some_areas_are_unknown(section: Section, tmp_path: Path) -> None:
    def holed(result: Result) -> Result:
        area = result.area_fraction.copy()
        area[:15] = np.nan
        return replace(result, area_fraction=area)

    found = {part.slug: part for part in run(changed(section, holed), tmp_path)}
    assert "15 images have no known object area" in " ".join(found["size"].tables[0].notes)
    assert found["size"].tables[1].rows[0].values[-1] == 105


def test_every_shift_is_the_same(section: Section, tmp_path: Path) -> None:
    one = changed(section, lambda result: replace(result, shift_stops=np.full(len(result), 0.1)))
    found = {part.slug: part for part in run(one, tmp_path)}
    assert [row.label for row in found["shift"].tables[0].rows] == ["All", "0 to 0.22, sub-threshold"]
    assert bin_figures.bin_lines(one, *shift.drawn(one), "", True).ticks == ["0 to\n0.22\n120"]


def test_the_chart_of_shifts_runs_from_the_lowest_to_the_highest(section: Section) -> None:
    ends = np.where(np.arange(120) < 30, -0.3, 0.7)
    one = changed(section, lambda result: replace(result, shift_stops=ends))
    lines = bin_figures.bin_lines(one, *shift.drawn(one), "", False)
    assert [tick.replace("\n", " ") for tick in lines.ticks] == [
        "−0.5 to −0.22 30", "−0.22 to 0 0", "0 to 0.22 0", "0.22 to 0.5 0", "0.5 to 1 90"
    ]  # fmt: skip
    values = [one.value for one in lines.lines[0].values]
    assert values[0] == pytest.approx(section.identity.mse[:30].mean())
    assert [isnan(value) for value in values] == [False, True, True, True, False]


@pytest.mark.usefixtures("undrawn")
def test_categories_of_one_image_and_of_none(section: Section, tmp_path: Path) -> None:
    def named(result: Result) -> Result:
        names = np.array([f"kind {i}" if i < 30 else "" for i in range(len(result))])
        return replace(result, category=names)

    found = {part.slug: part for part in run(changed(section, named), tmp_path)}
    table = found["categories"].tables[0]
    assert [row.values[0] for row in table.rows] == [30, *[1] * 30]
    assert len(table.head().rows) == 1 + categories.MOST
    assert "90 images without a known category" in " ".join(table.notes)
    assert len((tmp_path / "tables" / f"{table.name}.csv").read_text().splitlines()) == 32


def test_nothing_to_correct(section: Section, tmp_path: Path) -> None:
    def clean(result: Result) -> Result:
        none = np.zeros(len(result))
        mse = none if result.model == "identity" else result.mse
        correction = np.full(len(result), np.nan)
        return replace(result, mse=mse, identity_mse=none, correction=correction)

    found = [one.slug for one in run(changed(section, clean), tmp_path)]
    assert "failures" not in found


@pytest.mark.usefixtures("undrawn")
def test_two_sections_do_not_share_a_file(tmp_path: Path) -> None:
    folder = evaluations.write(tmp_path / "e", {"COCOExp": 30, "HCOCO": 25}, MODELS, strips=0, further=True)
    one, two = sections([read(folder)])
    written = [{table.name for part in run(section, tmp_path) for table in part.tables} for section in (one, two)]
    assert not written[0] & written[1]
    assert {path.stem for path in (tmp_path / "tables").glob("*.md")} == written[0] | written[1]


@pytest.mark.usefixtures("undrawn")
def test_two_stage_is_compared_with_its_true_masks(tmp_path: Path) -> None:
    folder = evaluations.write(tmp_path / "e", {"COCOExp": 40}, ("two_stage",), strips=0, further=True, lpips=None)
    found = {part.slug: part for part in run(sections([read(folder)])[0], tmp_path)}
    assert found["masks"].sentences[0].endswith("tables/differences-coco-exp.csv.")
    assert (tmp_path / "tables" / "differences-coco-exp.csv").is_file()
    assert found["pairs"].tables[0].rows[-1].group.startswith("against Two-stage")
