"""Comparison strips: composite, real and mask, then each model's output, signed difference and detector mask."""

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
WIDTH = 5.0  # inches
DOTS_PER_INCH = 160  # a panel is about 256 px wide
GAP = 0.05  # inches between panels
CAPTION = 0.24  # inches above each panel
BAR = 0.75  # inches below all panels
LONGEST_CAPTION = 20  # letters that fit above a panel


@dataclass(frozen=True)
class Panel:
    """``pixels`` is HxWx3 uint8, HxW uint8 (a mask) or HxW float (a difference, in levels of 255); None: not there."""

    caption: str
    pixels: np.ndarray | None


def panels(section: Section, strip: Strip) -> list[list[Panel]]:
    """Rows of three: composite, real, mask; then for each model its output, output - input and detector mask.

    A model that the strip has no output of has no row. Raises ``UserError`` for pictures that cannot be read or differ
    in size.
    """
    folder, images = section.evaluation.folder / "strips", strip.images
    composite = read_pixels(folder / images.composite, "RGB")
    size = composite.shape[:2]
    top = [
        Panel("composite", composite),
        Panel("real", read_pixels(folder / images.real, "RGB", size)),
        Panel("mask", read_pixels(folder / images.mask, "L", size)),
    ]
    rows = [top]
    for result in section.results:
        if result.run not in images.outputs:
            continue
        output = read_pixels(folder / images.outputs[result.run], "RGB", size)
        difference = (output.astype(float) - composite).mean(axis=2)
        detector = images.masks.get(result.run)
        mask = read_pixels(folder / detector, "L", size) if detector else None
        rows.append(
            [
                Panel(section.labels[result.run], output),
                Panel("output − input", difference),
                Panel("detector mask", mask),
            ]
        )
    return rows


@matplotlib.rc_context({"text.parse_math": False})
def draw(rows: list[list[Panel]], path: Path) -> None:
    """The panels in three columns under their captions, and below them the colour bar of the differences."""
    height, width = _shape(rows)
    panel_width = (WIDTH - 2 * GAP) / 3
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
            axes.set_title(shortened(panel.caption, LONGEST_CAPTION), fontsize=9, loc="left", pad=3)
            if panel.pixels.dtype == np.uint8:
                axes.imshow(panel.pixels, cmap="gray", vmin=0, vmax=255, aspect="auto")
            else:
                coloured = axes.imshow(
                    panel.pixels, cmap="RdBu_r", vmin=-DIFFERENCE_LIMIT, vmax=DIFFERENCE_LIMIT, aspect="auto"
                )
    if coloured is not None:
        place = figure.add_axes((0.15, 0.48 / total, 0.7, 0.11 / total))
        bar = figure.colorbar(coloured, cax=place, orientation="horizontal", extend="both")
        bar.set_label("output − input, mean of R, G and B, in levels of 255", fontsize=8.5)
        bar.ax.tick_params(labelsize=8.5)
    figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Software": None})


def _shape(rows: list[list[Panel]]) -> tuple[int, int]:
    pixels = rows[0][0].pixels
    assert pixels is not None
    return pixels.shape[0], pixels.shape[1]


def read_pixels(path: Path, mode: str, size: tuple[int, ...] | None = None) -> np.ndarray:
    """A picture as uint8, HxWx3 or HxW by ``mode``; ``UserError`` where it cannot be read or has another ``size``."""
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert(mode))
    except (OSError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is not a readable picture ({error}): make the evaluation again") from None
    if size and pixels.shape[:2] != size:
        raise UserError(f"{path} is {pixels.shape[:2]}, but the others are {size}: make the evaluation again")
    return pixels
