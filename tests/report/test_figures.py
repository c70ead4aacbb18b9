"""The figures' data, and what can be read back from their pixels."""

import warnings
from dataclasses import replace
from pathlib import Path

import evaluations
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from nrh_dist.report import bin_figures, bootstrap, figures
from nrh_dist.report.bootstrap import Estimate
from nrh_dist.report.collect import read
from nrh_dist.report.groups import tenths
from nrh_dist.report.sections import Section, sections


@pytest.fixture
def section(tmp_path: Path) -> Section:
    return sections([read(evaluations.write(tmp_path / "e", strips=2))])[0]


def lines_of(section: Section, relative: bool) -> bin_figures.BinLines:
    groups = tenths(section.identity.area_fraction)
    return bin_figures.bin_lines(section, groups, range(10), "object size", relative)


def test_bin_lines_against_identity(section: Section) -> None:
    absolute, relative = lines_of(section, False), lines_of(section, True)
    assert [line.model for line in absolute.lines] == ["identity", "dih_m", "ptc_dih"]
    assert [line.model for line in relative.lines] == ["dih_m", "ptc_dih"]
    values = [np.array([one.value for one in line.values]) for line in absolute.lines]
    found = [one.value for one in relative.lines[1].values]
    np.testing.assert_allclose(found, 100 * (values[2] / values[0] - 1))
    assert sum(absolute.lines[0].counts) == len(section.identity)


def test_bin_lines_have_intervals_where_photos_are_enough(section: Section) -> None:
    line = lines_of(section, True).lines[1]
    for one, images in zip(line.values, line.counts, strict=True):
        assert (one.interval is not None) == (one.photos >= bootstrap.FEWEST_PHOTOS)
        assert one.photos <= images
        assert one.interval is None or one.interval[0] < one.value < one.interval[1]
    assert line.values[0].interval


def test_an_interval_is_drawn_as_a_bar(tmp_path: Path) -> None:
    """The same points with and without an interval: more of the run's colour with it."""

    def coloured(interval: tuple[float, float] | None) -> int:
        values = [Estimate(10.0, (9.0, 11.0), 20), Estimate(-10.0, interval, 20), Estimate(-20.0, (-30.0, 0.0), 20)]
        line = bin_figures.Line("PTC-DIH", "ptc_dih", [0.0, 1.0, 2.0], values, [20, 20, 20])
        bin_figures.draw(bin_figures.BinLines(["a", "b", "c"], [line], "t", "x", True), tmp_path / "bars.png")
        pixels = np.asarray(Image.open(tmp_path / "bars.png").convert("RGB")).astype(int)
        return int((pixels[..., 2] - pixels[..., 0] > 60).sum())

    assert coloured((-25.0, 5.0)) > coloured(None) + 300


def test_the_names_of_lines_do_not_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five runs that end at the same point."""
    drawn: list[Figure] = []
    monkeypatch.setattr(figures, "save", lambda figure, path: drawn.append(figure))
    lines = [bin_figures.Line(f"run {i}", "x", [0, 1], [Estimate(5.0, None, 1)] * 2, [1, 1]) for i in range(5)]
    bin_figures.draw(bin_figures.BinLines(["a", "b"], lines, "t", "x", True), tmp_path / "n.png")
    drawn[0].canvas.draw()
    boxes = [text.get_window_extent() for text in drawn[0].axes[0].texts]
    assert len(boxes) == 5
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


def test_ridges_leave_out_missing_values(section: Section) -> None:
    mse = section.results[1].mse.copy()
    mse[:4] = np.nan
    holed = replace(section, results=[section.identity, replace(section.results[1], mse=mse)])
    assert [len(row.values) for row in figures.ridges(holed, "mse").rows] == [40, 36]
    assert [len(row.values) for row in figures.ridges(holed, "change").rows] == [36]
    assert figures.ridges(holed, "lpips").rows == []


def test_charts_draw_hard_cases(section: Section, tmp_path: Path) -> None:
    """One image, no error at all, no area, a name that looks like a formula: a picture and no warning."""
    identity = section.identity.rows([0])
    zero, cap = np.zeros(1), np.full(1, 100.0)
    still = replace(identity, mse=zero, psnr=cap, identity_mse=zero, identity_psnr=cap)
    run = replace(still, model="mine", run="a_$\\frac$")
    hard = replace(section, results=[still, run], labels={still.run: "Identity", run.run: run.run})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for relative in (False, True):
            bin_figures.draw(lines_of(hard, relative), tmp_path / f"bins{relative}.png")
        for quantity in ("mse", "psnr", "change"):
            figures.draw_ridges(figures.ridges(hard, quantity), tmp_path / f"{quantity}.png")
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as image:
            assert len(image.getcolors(100_000)) > 5


def test_no_change_is_neither_better_nor_worse() -> None:
    edges = figures.histogram_edges(-2.0, 2.0, 100, centred=True)
    around_zero = np.searchsorted(edges, 0.0)
    assert figures._side(edges[around_zero - 1], edges[around_zero]) == figures.UNCHANGED_COLOUR
    assert edges[0] <= -2 and edges[-1] >= 2
