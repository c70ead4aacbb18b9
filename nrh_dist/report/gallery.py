"""The strips of a chapter, by the group that each was chosen for: pictures to slide between, and all panels drawn."""

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image

from nrh_dist import failures
from nrh_dist.report import paper, strips
from nrh_dist.report.collect import Strip
from nrh_dist.report.parts import Picture, number
from nrh_dist.report.sections import Section

# In the order of the page; an evaluation may hold others, which follow.
SEVERAL = "one photo, several composites"
GROUPS = ("best", "median", "worst", "random", SEVERAL, *failures.RULES)


@dataclass(frozen=True)
class Side:
    """What the right side of a slider can show: ``file`` is a relative address, ``mse`` the error of this image."""

    label: str
    file: str
    alt: str
    mse: float


@dataclass(frozen=True)
class Comparison:
    """One image: its input, what can stand beside it (``shown`` is the position of the first one) and the strip."""

    slug: str
    input: Side
    sides: list[Side]
    shown: int
    drawn: Picture
    caption: str


@dataclass(frozen=True)
class Group:
    """Images chosen by one ``rule``; ``title`` is empty where an evaluation has no groups."""

    title: str
    rule: str
    comparisons: list[Comparison]


@dataclass(frozen=True)
class Gallery:
    groups: list[Group]
    note: str
    two_classes: bool


def gallery(section: Section, folder: Path) -> Gallery:
    """The section's strips, their pictures written to ``figures`` in ``folder``.

    Raises ``UserError`` for pictures that cannot be read or differ in size.
    """
    if not section.strips or section.evaluation.strips is None:
        return Gallery([], "The evaluation holds no strips of these images.", False)
    ordered = sorted(section.strips, key=lambda strip: _position(strip.group))
    found, two_classes = [], False
    for i, strip in enumerate(ordered, start=1):
        rows = strips.panels(section, strip)
        found.append((strip, _comparison(section, strip, rows, f"strip-{section.slug}-{i:02d}", folder)))
        two_classes |= strips.has_two_classes(rows)
    rules = section.evaluation.strips.rules
    groups = []
    for title, members in groupby(found, key=lambda pair: pair[0].group):
        rule = rules.get(title) or failures.RULES.get(title, "")
        groups.append(Group(title, rule, [comparison for _, comparison in members]))
    return Gallery(groups, f"How the images were chosen: {section.evaluation.strips.rule}", two_classes)


def _comparison(section: Section, strip: Strip, rows: list[list[strips.Panel]], slug: str, folder: Path) -> Comparison:
    title = f"{strip.dataset}/{strip.name}"
    strips.draw(rows, folder / "figures" / f"{slug}.png")
    errors = {
        result.run: float(result.mse[here][0])
        for result in section.results
        if (here := (result.datasets == strip.dataset) & (result.names == strip.name)).any()
    }
    shown = [result for result in section.results if result.run in strip.images.outputs]
    input_panel, real_panel = rows[0][0], rows[0][1]
    sides = []
    for i, (result, row) in enumerate(zip(shown, rows[1:], strict=True), start=1):
        label = section.labels[result.run]
        file = _save(row[0], f"{slug}-output-{i}", folder)
        sides.append(Side(label, file, f"What {label} makes of {title}", errors.get(result.run, float("nan"))))
    sides.append(Side("Real photo", _save(real_panel, f"{slug}-real", folder), f"The real photo of {title}", 0.0))
    before = Side(
        "Input",
        _save(input_panel, f"{slug}-input", folder),
        f"The composite {title} that the models are given",
        errors.get(section.identity.run, float("nan")),
    )
    caption = _caption(section, strip, title)
    values = "; ".join(f"{side.label} {number(side.mse, 1)}" for side in (before, *sides[:-1]))
    alt = (
        f"{title}: input, real photo, their difference and the mask, then each model's output, its differences to "
        f"input and real photo, and its detector mask. MSE: {values}."
    )
    drawn = Picture(f"figures/{slug}.png", alt, f"MSE: {values}.")
    return Comparison(slug, before, sides, _first(strip, [result.run for result in shown], section), drawn, caption)


def _caption(section: Section, strip: Strip, title: str) -> str:
    if not strip.run or strip.change is None:
        return title
    label = section.labels.get(strip.run, strip.run)
    return f"{title}: {label} changes its MSE by {number(strip.change, 1, sign=True)}"


def _first(strip: Strip, runs: list[str], section: Section) -> int:
    """The run that the image was chosen by, else the last one that does not see the mask, else the first."""
    if strip.run in runs:
        return runs.index(strip.run)
    models = {result.run: result.model for result in section.results}
    blind = [i for i, run in enumerate(runs) if models[run] not in paper.SEES_THE_MASK]
    return blind[-1] if blind else 0


def _save(panel: strips.Panel, name: str, folder: Path) -> str:
    file = f"figures/{name}.png"
    assert panel.pixels is not None
    Image.fromarray(np.ascontiguousarray(panel.pixels)).save(folder / file)
    return file


def _position(group: str) -> int:
    return GROUPS.index(group) if group in GROUPS else len(GROUPS) if group else -1
