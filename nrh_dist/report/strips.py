"""Comparison strips: input and real photo, then each model's output, its signed differences and its detector mask."""

import struct
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from nrh_dist.errors import UserError
from nrh_dist.report.collect import Strip
from nrh_dist.report.parts import shortened
from nrh_dist.report.sections import Section

DIFFERENCE_LIMIT = 50  # of 255: the one scale of every difference in every report
WIDTH = 6.6  # inches
DOTS_PER_INCH = 160  # a panel is about 256 px wide
COLUMNS = 4
GAP = 0.05  # inches between panels
CAPTION = 0.26  # inches above each panel
BAR = 0.8  # inches below all panels
FONT_SIZE = 10
LONGEST_CAPTION = 19  # letters that fit above a panel


@dataclass(frozen=True)
class Panel:
    """``pixels`` is HxWx3 uint8, HxW uint8 (a mask) or HxW float (a difference, in levels of 255); None: not there."""

    caption: str
    pixels: np.ndarray | None


def panels(section: Section, strip: Strip) -> list[list[Panel]]:
    """Rows of four: input, real, input - real, mask; then for each model output, output - input, output - real, mask.

    A model that the strip has no output of has no row. A detector of two classes has a mask in red (negative) and green
    (positive). Raises ``UserError`` for pictures that cannot be read or differ in size.
    """
    folder, images = section.evaluation.folder / "strips", strip.images
    composite = read_pixels(folder / images.composite, "RGB")
    size = composite.shape[:2]
    real = read_pixels(folder / images.real, "RGB", size)
    top = [
        Panel("input", composite),
        Panel("real", real),
        Panel("input − real", _difference(composite, real)),
        Panel("mask", read_pixels(folder / images.mask, "L", size)),
    ]
    rows = [top]
    for result in section.results:
        if result.run not in images.outputs:
            continue
        output = read_pixels(folder / images.outputs[result.run], "RGB", size)
        detector = images.masks.get(result.run)
        rows.append(
            [
                Panel(section.labels[result.run], output),
                Panel("output − input", _difference(output, composite)),
                Panel("output − real", _difference(output, real)),
                Panel("detector mask", read_mask(folder / detector, size) if detector else None),
            ]
        )
    return rows


def has_two_classes(rows: list[list[Panel]]) -> bool:
    """Whether a detector mask among the panels says which way an object was shifted, in red and green."""
    return any(row[-1].pixels is not None and row[-1].pixels.ndim == 3 for row in rows)


@matplotlib.rc_context({"text.parse_math": False})
def draw(rows: list[list[Panel]], path: Path) -> None:
    """The panels in four columns under their captions, and below them the colour bar of the differences."""
    height, width = _shape(rows)
    panel_width = (WIDTH - (COLUMNS - 1) * GAP) / COLUMNS
    panel_height = panel_width * height / width
    total = (panel_height + CAPTION) * len(rows) + BAR
    figure = Figure((WIDTH, total), facecolor="white")
    coloured = None
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            if panel.pixels is None:
                continue
            bottom = total - (i + 1) * (panel_height + CAPTION)
            left = j * (panel_width + GAP)
            axes = figure.add_axes(
                (left / WIDTH, bottom / total, panel_width / WIDTH, panel_height / total), xticks=[], yticks=[]
            )
            axes.set_axis_off()
            axes.set_title(shortened(panel.caption, LONGEST_CAPTION), fontsize=FONT_SIZE, loc="left", pad=3)
            if panel.pixels.dtype == np.uint8:
                axes.imshow(panel.pixels, cmap="gray", vmin=0, vmax=255, aspect="auto")
            else:
                coloured = axes.imshow(
                    panel.pixels, cmap="RdBu_r", vmin=-DIFFERENCE_LIMIT, vmax=DIFFERENCE_LIMIT, aspect="auto"
                )
    if coloured is not None:
        place = figure.add_axes((0.15, 0.52 / total, 0.7, 0.11 / total))
        bar = figure.colorbar(coloured, cax=place, orientation="horizontal", extend="both")
        bar.set_label("difference, mean of R, G and B, in levels of 255", fontsize=FONT_SIZE)
        bar.ax.tick_params(labelsize=FONT_SIZE)
    figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Software": None})


def _difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """``one`` - ``other``, mean over R, G and B: HxW float."""
    return (one.astype(float) - other).mean(axis=2)


def _shape(rows: list[list[Panel]]) -> tuple[int, int]:
    pixels = rows[0][0].pixels
    assert pixels is not None
    return pixels.shape[0], pixels.shape[1]


def read_mask(path: Path, size: tuple[int, ...]) -> np.ndarray:
    """A detector's mask: HxW of one class, HxWx3 of two."""
    pixels = read_pixels(path, "RGB", size)
    return pixels[..., 0] if (pixels == pixels[..., :1]).all() else pixels


def read_pixels(path: Path, mode: str, size: tuple[int, ...] | None = None) -> np.ndarray:
    """A picture as uint8, HxWx3 or HxW by ``mode``; ``UserError`` where it cannot be read or has another ``size``."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            pixels = np.asarray(image.convert(mode))
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is not a readable picture ({error}): make the evaluation again") from None
    if size and pixels.shape[:2] != size:
        raise UserError(f"{path} is {pixels.shape[:2]}, but the others are {size}: make the evaluation again")
    return pixels
