"""Two evaluations of the same images: which pairs are compared, what the tables say, and what the chart shows."""

import warnings
from dataclasses import replace
from math import isnan
from pathlib import Path

import evaluations
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from nrh_dist.errors import UserError
from nrh_dist.report import against, against_figures, figures
from nrh_dist.report.collect import read


def test_against_finds_what_moved(tmp_path: Path) -> None:
    now = read(evaluations.write(tmp_path / "now", leaves={"ptc_dih": 0.5}))
    before = read(evaluations.write(tmp_path / "before", leaves={"ptc_dih": 0.9}))
    pairs, left_out = against.pairs([now], before)
    assert left_out == 0
    table = against.by_model(pairs, left_out)
    rows = {row.model: dict(zip([one.key for one in table.columns], row.values, strict=True)) for row in table.rows}
    assert [*rows["dih_m"].values()][3:9] == [0] * 6
    assert rows["ptc_dih"]["mse_now"] == pytest.approx(now.results[2].mse.mean())
    assert rows["ptc_dih"]["change_percent"] < -30
    assert rows["ptc_dih"]["better1_percent"] > 50
    assert len(against.by_image(pairs).rows) == 80
    moved = against.by_image(pairs, 5).rows
    assert len(moved) == 5
    assert moved[0].values[2] == min(pair.now - pair.before for pair in pairs)


def test_against_leaves_out_images_whose_input_differs(tmp_path: Path) -> None:
    now = read(evaluations.write(tmp_path / "now"))
    other = evaluations.write(tmp_path / "before")
    rows = evaluations.read_rows(other)
    for row in rows:
        if row[3] == "c3_3_1":
            row[9] = "1.000000"
    evaluations.write_rows(other, rows)
    pairs, left_out = against.pairs([now], read(other))
    assert (len(pairs), left_out) == (78, 2)


def test_against_keeps_the_true_masks_of_two_stage_apart(tmp_path: Path) -> None:
    now = read(evaluations.write(tmp_path / "now", models=("dih_m", "two_stage"), strips=0))
    before = read(evaluations.write(tmp_path / "before", models=("dih_m",), strips=0))
    pairs, _ = against.pairs([now], before)
    assert {pair.model for pair in pairs} == {"dih_m"}
    assert all(pair.now == pair.before for pair in pairs)
    pairs, _ = against.pairs([now], now)
    assert [row.label for row in against.by_model(pairs, 0).rows] == ["DIH-M", "DIH-M, true masks", "Two-stage"]


def test_against_needs_the_same_size(tmp_path: Path) -> None:
    now = read(evaluations.write(tmp_path / "now", size=64))
    before = read(evaluations.write(tmp_path / "before", size=128))
    with pytest.raises(UserError, match="128 px"):
        against.pairs([now], before)


def test_the_paired_test_tells_a_change_from_none(tmp_path: Path) -> None:
    now = read(evaluations.write(tmp_path / "now", leaves={"ptc_dih": 0.5}))
    before = read(evaluations.write(tmp_path / "before", leaves={"ptc_dih": 0.9}))
    table = against.by_model(*against.pairs([now], before))
    keys = [column.key for column in table.columns]
    rows = {row.model: dict(zip(keys, row.values, strict=True)) for row in table.rows}
    difference = now.results[2].mse - before.results[2].mse
    assert rows["ptc_dih"]["mse_difference"] == pytest.approx(difference.mean())
    assert rows["ptc_dih"]["mse_difference_low"] < difference.mean() < rows["ptc_dih"]["mse_difference_high"] < 0
    assert rows["ptc_dih"]["p"] < 0.001
    assert rows["ptc_dih"]["photos"] == 20
    assert isnan(rows["dih_m"]["p"]) and isnan(rows["dih_m"]["p_holm"])  # nothing changed: no test


def test_the_paired_test_is_over_the_groups_of_the_evaluation(tmp_path: Path) -> None:
    now = read(evaluations.write(tmp_path / "now", leaves={"ptc_dih": 0.5}))
    grouped = [replace(one, group=np.array([f"g{i % 7}" for i in range(len(one))])) for one in now.results]
    before = read(evaluations.write(tmp_path / "before", leaves={"ptc_dih": 0.9}))
    table = against.by_model(*against.pairs([replace(now, results=grouped)], before))
    photos = [column.key for column in table.columns].index("photos")
    assert [row.values[photos] for row in table.rows] == [7, 7]


def test_against_refuses_other_images_under_the_same_names(tmp_path: Path) -> None:
    now = read(evaluations.write(tmp_path / "now"))
    other = read(evaluations.write(tmp_path / "before", seed=1))
    with pytest.raises(UserError, match="other images under the same names"):
        against.pairs([now], other)


def test_chart_shows_improved_and_worse(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    now = read(evaluations.write(tmp_path / "now", leaves={"ptc_dih": 0.5}))
    found, _ = against.pairs([now], now)

    def colours(factor: float) -> tuple[int, int]:
        picture = against.chart([replace(one, now=one.before * factor) for one in found], tmp_path)
        pixels = np.asarray(Image.open(tmp_path / picture.file).convert("RGB")).astype(int)
        below = pixels[pixels.shape[0] // 5 :]  # without the words above the panels
        return int((below[..., 2] - below[..., 0] > 60).sum()), int((below[..., 0] - below[..., 2] > 60).sum())

    (blue, none), (nil, orange) = colours(0.5), colours(2.0)
    assert blue > 500 > none
    assert orange > 500 > nil


@pytest.mark.parametrize("panels", [1, 3])
def test_chart_draws_one_image_without_any_error(panels: int, tmp_path: Path) -> None:
    one = against_figures.Panel("a_$\\frac$", np.zeros(1), np.zeros(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        against_figures.draw([one] * panels, tmp_path / "a.png")


def test_images_without_any_error_are_drawn_at_the_lowest_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(figures, "save", lambda figure, path: drawn.append(figure))
    against_figures.draw([against_figures.Panel("m", np.array([0.0, 50.0]), np.array([30.0, 0.0]))], tmp_path / "a.png")
    points = {(x, y) for line in drawn[0].axes[0].lines[1:] for x, y in zip(*line.get_data(), strict=True)}
    assert points == {(figures.LOWEST_MSE, 30.0), (50.0, figures.LOWEST_MSE)}
