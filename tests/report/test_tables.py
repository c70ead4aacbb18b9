"""The numbers of the tables: against brute force, against laws, and against the paper's own consistency."""

import json
from dataclasses import replace
from math import isnan
from pathlib import Path

import evaluations
import numpy as np
import pytest

from nrh_dist.errors import UserError
from nrh_dist.report import paper, statistics, tables
from nrh_dist.report.checks import check_summary
from nrh_dist.report.collect import read
from nrh_dist.report.sections import Section, sections


@pytest.fixture
def section(tmp_path: Path) -> Section:
    return sections([read(evaluations.write(tmp_path / "e", {"HCOCO": 60, "HFlickr": 20}))])[0]


@pytest.mark.parametrize("model", ["dih_m", "dih_nm", "ptc_att_dih", "ptc_dih"])
def test_papers_table_3_weights_to_its_table_2(model: str) -> None:
    bins = np.array(paper.TABLE_3["iHarmony4"][model])
    overall = statistics.weighted_mean(bins, np.array(paper.IHARMONY4_BIN_COUNTS))
    assert overall == pytest.approx(paper.TABLE_2["iHarmony4"][model][0], rel=0.01)


def test_weighted_mean_skips_empty_bins() -> None:
    assert statistics.weighted_mean(np.array([2.0, np.nan, 8.0]), np.array([3, 0, 1])) == 3.5
    assert isnan(statistics.weighted_mean(np.array([np.nan]), np.array([0])))


def test_bins_are_tenths_closed_below(section: Section) -> None:
    area = np.array([0.0, 0.099999, 0.1, 0.3, 0.599999, 0.6, 0.7, 0.9, 1.0] + [np.nan] * 71)
    result = replace(section.results[1], area_fraction=area)
    assert [one.count for one in statistics.by_bin(result)] == [2, 1, 0, 1, 0, 1, 1, 1, 0, 2]


def test_bins_weight_to_the_overall_mean(section: Section) -> None:
    for result in section.results:
        bins = statistics.by_bin(result)
        overall = statistics.weighted_mean(np.array([b.mse for b in bins]), np.array([b.count for b in bins]))
        assert overall == pytest.approx(result.mse.mean())


def test_means_match_a_loop_over_the_rows(section: Section) -> None:
    for result in section.results:
        rows = [row for row in evaluations.read_rows(section.evaluation.folder) if row[2] == result.run]
        rises = [float(row[4]) - float(row[9]) for row in rows]
        found = statistics.means(result)
        assert found.images == len(rows) == 80
        assert found.psnr == pytest.approx(sum(float(row[5]) for row in rows) / 80)
        assert found.worse == sum(rise > 0.01 for rise in rises) / 80
        assert found.worse1 == sum(rise > 1 for rise in rises) / 80
        assert isnan(found.lpips)


@pytest.mark.parametrize(("count", "listed"), [(2, "HCOCO/a, HCOCO/b."), (30, "HCOCO/a, HCOCO/b, ….")])
def test_samples_that_were_left_out_are_named(section: Section, count: int, listed: str) -> None:
    assert not any("are in no number" in note for note in tables.table_2(section).notes)
    path = section.evaluation.folder / "summary.json"
    summary = json.loads(path.read_text())
    path.write_text(json.dumps(summary | {"left_out": {"count": count, "names": ["HCOCO/a", "HCOCO/b"]}}))
    (found,) = sections([read(section.evaluation.folder)])
    said = f"{count} samples of the data, whose files cannot be used, are in no number: {listed}"
    assert said in tables.table_2(found).notes


def test_missing_values_are_counted_not_averaged(section: Section) -> None:
    result = section.results[2]
    mse, fmse, psnr = result.mse.copy(), result.fmse.copy(), result.psnr.copy()
    mse[:3], fmse[:8], psnr[:2] = np.nan, np.nan, 100.0  # three outputs that are not finite, five empty masks
    found = statistics.means(replace(result, mse=mse, fmse=fmse, psnr=psnr))
    assert (found.without_mse, found.fmse_empty, found.psnr_capped) == (3, 5, 2)
    assert found.mse == pytest.approx(result.mse[3:].mean())


def test_change_of_a_halved_error_is_exact(section: Section) -> None:
    identity = section.identity
    found = statistics.change(replace(section.results[1], mse=identity.mse / 2))
    assert found.value == pytest.approx(-0.5)
    assert found.interval == pytest.approx((-0.5, -0.5))
    assert found.verdict == -1
    assert statistics.change(identity).verdict == 0
    assert statistics.change(replace(identity, mse=identity.mse * 2)).verdict == 1


def test_change_is_less_sure_where_photos_repeat(section: Section) -> None:
    result = section.results[2]
    alone = replace(result, names=np.array([f"c{i}_0_0" for i in range(80)]))
    order = np.argsort(np.argsort(result.mse / result.identity_mse))
    shared = replace(result, names=np.array([f"c{i // 8}_{i}_0" for i in order]), datasets=np.full(80, "HCOCO"))
    width = [np.ptp(statistics.change(one).interval) for one in (alone, shared)]
    assert statistics.change(shared).photos == 10
    assert width[1] > 1.3 * width[0]


def test_change_needs_photos_and_an_error(section: Section) -> None:
    result = section.results[1]
    one_photo = replace(result, names=np.array([f"c7_{i}_0" for i in range(80)]), datasets=np.full(80, "HCOCO"))
    assert statistics.change(one_photo).interval is None
    assert statistics.change(one_photo).verdict == 0
    assert statistics.change(replace(result, identity_mse=np.zeros(80))) is None


def test_summary_is_checked_against_the_rows(tmp_path: Path) -> None:
    folder = evaluations.write(tmp_path / "e")
    check_summary(read(folder))
    rows = evaluations.read_rows(folder)
    rows[-1][4] = "99999.000000"
    evaluations.write_rows(folder, rows)
    with pytest.raises(UserError, match=r"summary\.json states MSE"):
        check_summary(read(folder))


@pytest.mark.parametrize(
    ("wrong", "says"), [("median_mse", "states a median MSE of"), ("field_bins", "states MSE in 5-15%")]
)
def test_medians_and_field_bins_are_checked_where_they_are_stated(wrong: str, says: str, tmp_path: Path) -> None:
    folder = evaluations.write(tmp_path / "e")
    result = read(folder).results[1]
    middle = (result.area_fraction >= 0.05) & (result.area_fraction < 0.15)
    stated = {"dataset": "Sample", "run": result.run, "count": 40, "median_mse": float(np.median(result.mse))}
    stated["field_bins"] = [{"bin": "5-15%", "count": int(middle.sum()), "mse": float(result.mse[middle].mean())}]
    evaluations.edit_summary(folder, models=[stated])
    check_summary(read(folder))
    if wrong == "median_mse":
        stated["median_mse"] += 1
    else:
        stated["field_bins"][0]["mse"] += 1
    evaluations.edit_summary(folder, models=[stated])
    with pytest.raises(UserError, match=says):
        check_summary(read(folder))


def test_table_2_stands_beside_the_papers(section: Section) -> None:
    table = tables.table_2(section)
    keys = [column.key for column in table.columns]
    rows = {row.model: dict(zip(keys, row.values, strict=True)) for row in table.rows}
    assert list(rows) == ["identity", "dih_m", "dih_nm", "ptc_att_dih", "ptc_dih"]
    assert rows["ptc_dih"]["mse"] == pytest.approx(section.results[2].mse.mean())
    assert (rows["ptc_dih"]["paper_mse"], rows["ptc_dih"]["paper_psnr"]) == (124, 31.39)
    assert isnan(rows["dih_nm"]["mse"])
    assert rows["dih_nm"]["paper_mse"] == 153
    assert isnan(rows["identity"]["worse1_percent"])


def test_best_in_bold_is_without_the_mask(section: Section) -> None:
    bold = {row.model: row.bold for row in tables.table_2(section).rows}
    assert bold["ptc_dih"] == {0, 1}  # dih_m has the lower error, but sees the mask
    assert not bold["dih_m"]


def test_other_data_has_no_paper_columns(tmp_path: Path) -> None:
    other = sections([read(evaluations.write(tmp_path / "e"))])[0]
    assert not any(column.key.startswith("paper") for column in tables.table_2(other).columns)
    assert not any(row.group.startswith("paper") for row in tables.table_3(other).rows)


def test_table_3_keeps_empty_bins_and_says_so(section: Section) -> None:
    few = replace(section, results=[replace(r, area_fraction=np.full(80, 0.15)) for r in section.results])
    table = tables.table_3(few)
    counts = next(row for row in table.rows if row.label == "Images")
    assert counts.values == [0, 80, 0, 0, 0, 0, 0, 0]
    assert isnan(table.rows[1].values[0])
    assert any("No images with an object of 0–10 %" in note for note in table.notes)


def test_table_3_shows_bins_beyond_the_papers(section: Section) -> None:
    large = replace(section, results=[replace(r, area_fraction=np.full(80, 0.95)) for r in section.results])
    table = tables.table_3(large)
    assert [column.key for column in table.columns][-1] == "90-100%"
    assert all(len(row.values) == len(table.columns) for row in table.rows)


def test_subsets_split_the_mean(section: Section) -> None:
    row = next(row for row in tables.subsets(section).rows if row.model == "ptc_dih")
    assert (60 * row.values[0] + 20 * row.values[2]) / 80 == pytest.approx(section.results[2].mse.mean())
