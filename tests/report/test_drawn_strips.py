"""Strips: panels, what their colours say, and the page's gallery of them by group."""

import json
from pathlib import Path

import evaluations
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from nrh_dist.errors import UserError
from nrh_dist.report import gallery, strips
from nrh_dist.report.collect import read
from nrh_dist.report.sections import Section, sections


@pytest.fixture
def section(tmp_path: Path) -> Section:
    return sections([read(evaluations.write(tmp_path / "e", strips=2))])[0]


def made(section: Section, folder: Path) -> gallery.Gallery:
    (folder / "figures").mkdir(parents=True)
    return gallery.gallery(section, folder)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(float)


def test_panels_are_the_pictures_and_their_signed_differences(section: Section) -> None:
    strip = section.strips[0]
    rows = strips.panels(section, strip)
    folder = section.evaluation.folder / "strips"
    composite, real = pixels(folder / strip.images.composite), pixels(folder / strip.images.real)
    output = pixels(folder / strip.images.outputs["ptc_dih-seed0"])
    assert [panel.caption for panel in rows[0]] == ["input", "real", "input − real", "mask"]
    np.testing.assert_allclose(rows[0][2].pixels, (composite - real).mean(axis=2))
    np.testing.assert_allclose(rows[2][1].pixels, (output - composite).mean(axis=2))
    np.testing.assert_allclose(rows[2][2].pixels, (output - real).mean(axis=2))
    assert rows[1][3].pixels is None  # DIH-M has no detector
    assert rows[2][3].pixels.max() == 200


def test_a_model_without_output_has_no_row(section: Section) -> None:
    strip = section.strips[0]
    del strip.images.outputs["dih_m-seed0"]
    assert [row[0].caption for row in strips.panels(section, strip)] == ["input", "PTC-DIH"]


def test_red_is_brighter_blue_is_darker_on_one_fixed_scale(tmp_path: Path) -> None:
    grey, mask = np.full((64, 64, 3), 100, np.uint8), np.zeros((64, 64), np.uint8)

    def colour_of(first: float, second: float) -> np.ndarray:
        difference = np.full((64, 64), first)
        difference[:, 32:] = second
        top = [strips.Panel("input", grey), strips.Panel("real", grey), strips.Panel("", None), strips.Panel("", mask)]
        row = [strips.Panel("m", grey), strips.Panel("output − input", difference), *top[2:]]
        strips.draw([top, row], tmp_path / "strip.png")
        drawn = pixels(tmp_path / "strip.png")
        height, width = drawn.shape[:2]
        y = int((2 * strips.CAPTION + 1.5 * strips.WIDTH / strips.COLUMNS) * strips.DOTS_PER_INCH)
        assert y < height
        return drawn[y, [int(0.32 * width), int(0.43 * width)]]

    brighter, darker = colour_of(30, -30)
    assert brighter[0] > brighter[2] + 50
    assert darker[2] > darker[0] + 50
    np.testing.assert_array_equal(colour_of(30, 200)[0], brighter)  # a larger neighbour changes nothing


@pytest.mark.parametrize("has_differences", [True, False])
def test_the_colour_bar_stands_where_there_is_a_difference(
    has_differences: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below all panels, over the one scale of all reports, with arrows for what is beyond; else the place is white."""
    bars = []
    colorbar = Figure.colorbar
    monkeypatch.setattr(Figure, "colorbar", lambda *a, **k: bars.append(colorbar(*a, **k)) or bars[-1])
    grey = np.full((64, 64, 3), 100, np.uint8)
    third = strips.Panel("input − real", np.zeros((64, 64)) if has_differences else None)
    row = [strips.Panel("input", grey), strips.Panel("real", grey), third, strips.Panel("mask", grey[..., 0])]
    strips.draw([row], tmp_path / "strip.png")
    drawn = pixels(tmp_path / "strip.png")
    top = round((strips.CAPTION + (strips.WIDTH - 3 * strips.GAP) / strips.COLUMNS) * strips.DOTS_PER_INCH) + 3
    below = drawn[top:]
    assert (below.min() < 255) == has_differences
    if has_differences:
        (bar,) = bars
        assert (bar.vmin, bar.vmax, bar.extend) == (-strips.DIFFERENCE_LIMIT, strips.DIFFERENCE_LIMIT, "both")
        assert "levels of 255" in bar.ax.get_xlabel()
        left, right = (below[:, int(x * below.shape[1])] for x in (0.17, 0.83))
        assert (left[:, 2] > left[:, 0] + 50).any() and (right[:, 0] > right[:, 2] + 50).any(), "blue to red"


def test_a_mask_of_two_classes_keeps_its_colours(section: Section, tmp_path: Path) -> None:
    strip = section.strips[0]
    assert not strips.has_two_classes(strips.panels(section, strip))
    coloured = np.zeros((64, 64, 3), np.uint8)
    coloured[:20, :, 0] = coloured[20:40, :, 1] = 180
    Image.fromarray(coloured).save(section.evaluation.folder / "strips" / strip.images.masks["ptc_dih-seed0"])
    rows = strips.panels(section, strip)
    np.testing.assert_array_equal(rows[2][3].pixels, coloured)
    assert strips.has_two_classes(rows)
    assert made(section, tmp_path / "page").two_classes


def test_pictures_that_cannot_be_used_are_named(section: Section) -> None:
    folder = section.evaluation.folder / "strips"
    Image.new("L", (32, 32)).save(folder / "0000-mask.png")
    with pytest.raises(UserError, match=r"0000-mask\.png is \(32, 32\)"):
        strips.panels(section, section.strips[0])
    (folder / "0000-real.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"0000-real\.png is not a readable picture"):
        strips.panels(section, section.strips[0])


@pytest.mark.parametrize("place", [5, 11, 35, 60])  # Pillow raises another kind of error for each of the first three
def test_a_damaged_picture_is_named_whatever_the_damage(place: int, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16), dtype=np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.png is not a readable picture .*make the evaluation again$"):
        strips.read_pixels(path, "L")


def test_a_picture_of_another_kind_is_no_png(tmp_path: Path) -> None:
    Image.new("L", (16, 16)).save(tmp_path / "a.png", format="GIF")
    with pytest.raises(UserError, match="not a readable picture"):
        strips.read_pixels(tmp_path / "a.png", "L")


def test_sides_are_the_pictures_of_the_evaluation(section: Section, tmp_path: Path) -> None:
    found = made(section, tmp_path / "page")
    assert [group.title for group in found.groups] == [""]
    assert "evenly spaced" in found.note
    one, strip = found.groups[0].comparisons[1], section.strips[1]
    folder = section.evaluation.folder / "strips"
    assert [side.label for side in one.sides] == ["DIH-M", "PTC-DIH", "Real photo"]
    files = [strip.images.outputs["dih_m-seed0"], strip.images.outputs["ptc_dih-seed0"], strip.images.real]
    for side, file in zip((one.input, *one.sides), (strip.images.composite, *files), strict=True):
        np.testing.assert_array_equal(pixels(tmp_path / "page" / side.file), pixels(folder / file))
    row = section.identity.names.tolist().index(strip.name)
    expected = [section.identity.mse[row], *(result.mse[row] for result in section.results[1:]), 0.0]
    assert [side.mse for side in (one.input, *one.sides)] == expected
    assert one.shown == 1, "the model that does not see the mask"


def test_groups_are_in_the_order_of_the_page_with_their_rules(tmp_path: Path) -> None:
    folder = evaluations.write(tmp_path / "e", strips=5)
    path = folder / "strips" / "strips.json"
    values = json.loads(path.read_text())
    groups = ("not detected", "worst", "of another version", "best", "worst")
    for strip, group in zip(values["strips"], groups, strict=True):
        strip |= {"group": group, "run": "dih_m-seed0", "change": -3.25}
    values["rules"] = {"best": "the five images whose error fell most"}
    path.write_text(json.dumps(values))
    found = made(sections([read(folder)])[0], tmp_path / "page")
    assert [group.title for group in found.groups] == ["best", "worst", "not detected", "of another version"]
    assert [len(group.comparisons) for group in found.groups] == [1, 2, 1, 1]
    assert found.groups[0].rule == "the five images whose error fell most"
    assert "the detector's mask is below" in found.groups[2].rule
    best = found.groups[0].comparisons[0]
    assert best.caption.endswith("DIH-M changes its MSE by −3.2")
    assert best.sides[best.shown].label == "DIH-M", "the run that it was chosen by"


def test_without_strips_the_page_says_so(tmp_path: Path) -> None:
    section = sections([read(evaluations.write(tmp_path / "e", strips=0))])[0]
    found = made(section, tmp_path / "page")
    assert not found.groups
    assert "holds no strips" in found.note
