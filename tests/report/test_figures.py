"""The figures' data, and what can be read back from their pixels."""

import warnings
from dataclasses import replace
from pathlib import Path

import evaluations
import numpy as np
import pytest
from PIL import Image

from nrh_dist.report import figures
from nrh_dist.report.collect import read
from nrh_dist.report.sections import Section, sections


@pytest.fixture
def section(tmp_path: Path) -> Section:
    return sections([read(evaluations.write(tmp_path / "e", strips=2))])[0]


def test_bin_lines_against_identity(section: Section) -> None:
    absolute, relative = figures.bin_lines(section, False), figures.bin_lines(section, True)
    assert [line.model for line in absolute.lines] == ["identity", "dih_m", "ptc_dih"]
    assert [line.model for line in relative.lines] == ["dih_m", "ptc_dih"]
    ratio = 100 * (np.array(absolute.lines[2].values) / absolute.lines[0].values - 1)
    np.testing.assert_allclose(relative.lines[1].values, ratio)
    assert sum(absolute.counts) == len(section.identity)


def test_ridges_leave_out_missing_values(section: Section) -> None:
    mse = section.results[1].mse.copy()
    mse[:4] = np.nan
    holed = replace(section, results=[section.identity, replace(section.results[1], mse=mse)])
    assert [len(row.values) for row in figures.ridges(holed, "mse").rows] == [40, 36]
    assert [len(row.values) for row in figures.ridges(holed, "change").rows] == [36]
    assert figures.ridges(holed, "lpips").rows == []


def test_charts_draw_hard_cases(section: Section, tmp_path: Path) -> None:
    """One image, no error at all, no area, a name that looks like a formula: a picture and no warning."""
    identity = section.identity.of(("nothing",))
    one = {key: getattr(section.identity, key)[:1] for key in ("datasets", "names", "area_fraction", "fmse", "lpips")}
    zero, cap = np.zeros(1), np.full(1, 100.0)
    still = replace(identity, **one, mse=zero, psnr=cap, identity_mse=zero, identity_psnr=cap)
    run = replace(still, model="mine", run="a_$\\frac$")
    hard = replace(section, results=[still, run], labels={still.run: "Identity", run.run: run.run})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for relative in (False, True):
            figures.draw_bins(figures.bin_lines(hard, relative), tmp_path / f"bins{relative}.png")
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
