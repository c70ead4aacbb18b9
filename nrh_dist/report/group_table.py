"""A table with a row a group of images: how many, the input's error, and what each run made of it."""

import numpy as np

from nrh_dist.report import paper
from nrh_dist.report.groups import Groups
from nrh_dist.report.result import IDENTITY
from nrh_dist.report.sections import Section
from nrh_dist.report.shown import Column, Row, percent
from nrh_dist.report.statistics import by_group


def columns_of(section: Section) -> list[Column]:
    """Images and the input's MSE, then MSE and change for each run."""
    columns = [Column("images", "Images", "", 0), Column("identity_mse", "input", "MSE")]
    for result in section.results:
        if result.model != IDENTITY:
            label = section.labels[result.run]
            columns.append(Column(f"{result.run}_mse", "MSE", label))
            columns.append(Column(f"{result.run}_change_percent", "change, %", label, 1))
    return columns


def rows_of(section: Section, groups: Groups, title: str) -> list[Row]:
    """All images that are in a group, then each group that holds some; the best mask-free MSE of a row in bold."""
    together = Groups(["All"], np.where(groups.index >= 0, 0, -1))
    rows = _rows(section, together, "") + _rows(section, groups, title)
    return [row for row in rows if row.values[0]]


def _rows(section: Section, groups: Groups, title: str) -> list[Row]:
    identity = by_group(section.identity, groups)
    values: list[list[float]] = [[one.count, one.mse] for one in identity]
    fair = [1]
    for result in section.results:
        if result.model == IDENTITY:
            continue
        if result.model not in paper.SEES_THE_MASK:
            fair.append(len(values[0]) if values else 0)
        for cells, one in zip(values, by_group(result, groups), strict=True):
            cells += [one.mse, percent(one.mse, one.identity_mse)]
    return [
        Row(label, cells, title, bold=_best(cells, fair)) for label, cells in zip(groups.labels, values, strict=True)
    ]


def _best(cells: list[float], fair: list[int]) -> frozenset[int]:
    found = [i for i in fair if not np.isnan(cells[i])]
    lowest = min((cells[i] for i in found), default=np.nan)
    return frozenset(i for i in found if cells[i] == lowest)
