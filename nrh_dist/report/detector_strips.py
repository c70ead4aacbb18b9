"""The gallery of a detector evaluation: a photo, its mask, the shifted photos and what each detector says of them."""

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nrh_dist.report import strips
from nrh_dist.report.detector_collect import DetectorEvaluation, DetectorStrip
from nrh_dist.report.parts import number, shortened

PANEL = 1.3  # inches
GAP = 0.06
CAPTION = 0.22  # inches above each panel
HEADING = 0.26  # inches above each row
FEWEST_COLUMNS = 4  # photo, mask and a legend as wide as two panels
LEGEND = (
    ("red", "#C00000", "darkened (negative)"),
    ("green", "#007000", "brightened (positive)"),
    ("black", "#000000", "no shift seen"),
)


@dataclass(frozen=True)
class Panel:
    """``pixels`` is HxWx3 or HxW uint8."""

    caption: str
    pixels: np.ndarray


@dataclass(frozen=True)
class DetectorPanels:
    """One photo: ``photo`` and ``mask``, then rows of panels, one an offset, each under its heading."""

    photo: np.ndarray
    mask: np.ndarray
    rows: list[tuple[str, list[Panel]]]


def panels(evaluation: DetectorEvaluation, strip: DetectorStrip) -> DetectorPanels:
    """The shifted photos by offset, then for each detector that the strip has its answer M_p to each.

    Above M_p stand the mean probabilities inside the mask, of darkened (-) and of brightened (+).
    Raises ``UserError`` for pictures that cannot be read or differ in size.
    """
    folder, images = evaluation.folder / "strips", strip.images
    photo = strips.read_pixels(folder / images.photo, "RGB")
    size = photo.shape[:2]
    mask = strips.read_pixels(folder / images.mask, "L", size)
    shifted = [
        Panel(
            f"{number(offset, 2, True)} stops" if offset else "unchanged",
            strips.read_pixels(folder / file, "RGB", size),
        )
        for offset, file in zip(strip.offsets, images.shifted, strict=True)
    ]
    rows = [("photo with the object's exposure shifted by", shifted)]
    for detector in evaluation.summary.detectors:
        answers = [strips.read_pixels(folder / file, "RGB", size) for file in images.detected.get(detector.run, [])]
        if answers:
            heading = f"{shortened(detector.run)}: mean probability in the mask (outlined)"
            rows.append((heading, [Panel(in_mask(pixels, mask), pixels) for pixels in answers]))
    return DetectorPanels(photo, mask, rows)


def in_mask(pixels: np.ndarray, mask: np.ndarray) -> str:
    """The means of red and of green, weighted by the mask, as the probabilities they stand for; '' without a mask."""
    weight = mask.astype(float)
    if not weight.any():
        return ""
    negative, positive = (weight[..., None] * pixels[..., :2]).sum(axis=(0, 1)) / weight.sum() / 255
    return f"− {negative:.2f}   + {positive:.2f}"


@matplotlib.rc_context({"text.parse_math": False})
def draw(data: DetectorPanels, path: Path) -> None:
    """The photo, the mask and the legend in words above; below, a row of shifted photos and one a detector."""
    columns = max(FEWEST_COLUMNS, *(len(row) for _, row in data.rows))
    height = PANEL * data.photo.shape[0] / data.photo.shape[1]
    width = columns * PANEL + (columns - 1) * GAP
    total = CAPTION + height + len(data.rows) * (HEADING + CAPTION + height) + 0.03
    figure = Figure((width, total), facecolor="white")

    def place(column: int, top: float, panel: Panel) -> Axes:
        left = column * (PANEL + GAP)
        axes = figure.add_axes(
            (left / width, 1 - (top + CAPTION + height) / total, PANEL / width, height / total), xticks=[], yticks=[]
        )
        axes.set_axis_off()
        axes.set_title(panel.caption, fontsize=9, loc="left", pad=3)
        axes.imshow(panel.pixels, cmap="gray", vmin=0, vmax=255, aspect="auto")
        return axes

    place(0, 0, Panel("photo", data.photo))
    place(1, 0, Panel("mask of the object", data.mask))
    _legend(figure, 2 * (PANEL + GAP) / width, total)
    top = CAPTION + height
    for i, (heading, row) in enumerate(data.rows):
        figure.text(0, 1 - (top + HEADING - 0.03) / total, heading, fontsize=9, fontweight="bold", va="bottom")
        for column, panel in enumerate(row):
            axes = place(column, top + HEADING, panel)
            if i and 0 < (data.mask >= 128).mean() < 1:
                axes.contour(data.mask >= 128, levels=[0.5], colors="white", linewidths=0.7)
        top += HEADING + CAPTION + height
    figure.savefig(path, dpi=strips.DOTS_PER_INCH, metadata={"Software": None})


def _legend(figure: Figure, left: float, total: float) -> None:
    """The colours of M_p in words, to the right of the mask."""
    figure.text(left, 1 - CAPTION / total, "the detector’s answer", fontsize=9, fontweight="bold", va="top")
    for i, (name, colour, words) in enumerate(LEGEND, start=1):
        figure.text(left, 1 - (CAPTION + 0.21 * i) / total, f"{name}: {words}", fontsize=9, color=colour, va="top")
