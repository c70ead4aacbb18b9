"""The summary and the picture of a COCO-Exp set, from its manifest alone."""

import csv

import numpy as np
import pytest
from PIL import Image

from nrh_dist.errors import UserError
from nrh_dist.report import coco_exp

COLUMNS = ("composite", "split", "category", "area_fraction", "shift_stops", "clipped_share", "mse", "sub_threshold")


@pytest.fixture
def manifest(tmp_path):
    """Eleven test composites of ten categories, two of them cats, and one of the train split."""
    rows = [["a.jpg", "train", "dog", 0.5, 3.0, 0.0, 9999.0, 0]]
    shifts = (-2.0, -0.7, -0.3, -0.22, -0.1, 0.0, 0.219, 0.3, 0.7, 1.0, 1.5)
    for number, shift in enumerate(shifts):
        category = "cat" if number < 2 else f"kind {number}"
        area = 0.1 if number == 1 else 0.05 + 0.9 * (number == 2)
        rows.append([f"{number}.jpg", "test", category, area, shift, 0.1, 100.0 * number, int(-0.22 < shift < 0.22)])
    with (tmp_path / "manifest.csv").open("w") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return tmp_path / "manifest.csv"


def test_only_the_rows_of_the_split_are_read(manifest):
    found = coco_exp.read(manifest, "test")
    assert len(found.mse) == 11
    assert found.is_sub_threshold.sum() == 3
    assert coco_exp.read(manifest, "train").category == ["dog"]


def test_the_flag_is_that_of_the_manifest(manifest):
    lines = manifest.read_text().splitlines()
    assert lines[-1].endswith(",1.5,0.1,1000.0,0")
    manifest.write_text("\n".join([*lines[:-1], lines[-1][:-1] + "1"]))
    assert list(np.flatnonzero(coco_exp.read(manifest, "test").is_sub_threshold)) == [4, 5, 6, 10]


def test_the_summary_counts_every_composite_once(manifest):
    lines = coco_exp.summary(coco_exp.read(manifest, "test"), {"flat": 2, "tiny": 1100})
    text = "\n".join(lines)
    assert "made        11" in text
    assert "1,102 (2 flat, 1,100 tiny)" in text
    assert "cat 2, " in text and "and 2 others 2" in text
    start = next(place for place, line in enumerate(lines) if line.startswith("shift"))
    counts = [int(line.split("%")[0].split()[-2]) for line in lines[start + 1 : start + 9]]
    assert counts == [1, 1, 1, 2, 2, 1, 1, 2]
    assert "27.3 % sub-threshold" in text
    sizes = {line.split()[0]: line.split()[1:] for line in lines if "%" in line.split()[0]}
    assert sizes["0-10%"] == ["9", f"{(5500 - 300) / 9:.1f}", "86.1"]
    assert sizes["10-20%"] == ["1", "100.0", "524.3"]
    assert sizes["20-30%"] == ["0", "-", "878.4"]
    assert sizes["90-100%"] == ["1", "200.0"]
    assert "80-90%" not in sizes
    assert "all                 11      500.0" in text
    assert "full size and before compression" in text
    assert max(map(len, lines)) <= 120


def test_nothing_rejected_needs_no_reasons(manifest):
    assert "rejected    0" in coco_exp.summary(coco_exp.read(manifest, "test"), {})


def test_every_composite_is_in_every_panel(manifest):
    found = coco_exp.read(manifest, "test")
    panels = coco_exp.panels(found)
    for bars in (panels.area, panels.shift, panels.mse):
        assert bars.heights.sum() == 11
        assert len(bars.edges) == len(bars.heights) + 1
    zone = np.abs((panels.shift.edges[1:] + panels.shift.edges[:-1]) / 2) < coco_exp.SUB_THRESHOLD_STOPS
    assert panels.shift.heights[zone].sum() == pytest.approx(found.is_sub_threshold.sum(), abs=1)  # the edge -0.22
    assert panels.categories[0] == ("cat", 2) and len(panels.categories) == 8
    assert panels.others == "and 2 others: 2"


def test_the_picture_is_drawn(manifest, tmp_path):
    coco_exp.draw(coco_exp.panels(coco_exp.read(manifest, "test")), tmp_path / "a.png")
    coco_exp.draw(coco_exp.panels(coco_exp.read(manifest, "train")), tmp_path / "b.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.width == 1000
        colours = {colour for _, colour in image.convert("RGB").getcolors(10**6)}
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0xBB, 0xBB, 0xBB)} <= colours


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no composites of the test split"),
        ("composite,split\na.jpg,test\n", "is not a manifest"),
        (",".join(COLUMNS) + "\na,test,cat,x,1,1,1,1\n", "is not a manifest"),
        (",".join(COLUMNS) + "\na,test,cat,1,1,1,1,x\n", "is not a manifest"),
        (",".join(COLUMNS) + "\na,test,cat,1,1\n", "is not a manifest"),
    ],
)
def test_a_broken_manifest_is_one_line(tmp_path, content, message):
    (tmp_path / "manifest.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        coco_exp.read(tmp_path / "manifest.csv", "test")
    with pytest.raises(UserError, match="cannot read"):
        coco_exp.read(tmp_path / "none.csv", "test")
