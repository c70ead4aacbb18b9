"""Why images are no success: the failures of each run by the rules of ``nrh_dist.failures``."""

from math import nan
from pathlib import Path

from nrh_dist import failures
from nrh_dist.report.result import IDENTITY, Result
from nrh_dist.report.sections import Section
from nrh_dist.report.shown import Analysis, Column, Row, Table

NEEDS = ("mse", "correction", "change_outside", "detected")  # what the rules look at


def analyse(section: Section, folder: Path) -> Analysis | None:
    """None where no run's correction was measured: why it failed cannot be told then."""
    runs = [r for r in section.results if r.model != IDENTITY and r.has("mse") and r.has("correction")]
    return Analysis("failures", "Failures", [], [table(section, runs)]) if runs else None


def table(section: Section, runs: list[Result]) -> Table:
    """A row a group: how many of each run's images, and their share of those that had something to correct."""
    columns, found = [], []
    for result in runs:
        label = section.labels[result.run]
        columns += [
            Column(f"{result.run}_images", "images", label, 0),
            Column(f"{result.run}_percent", "%", label, 1),
        ]
        groups = failures.groups(
            result.mse, result.identity_mse, result.correction, result.change_outside, result.detected
        )
        found.append({key: int((groups == key).sum()) for key in (*failures.RULES, failures.SUCCESS)})
        found[-1][failures.NOTHING_TO_CORRECT] = int((groups == failures.NOTHING_TO_CORRECT).sum())
    rows = [_row(key, found, "failures, the first group that fits") for key in failures.RULES]
    rows += [_row(failures.SUCCESS, found, "others"), _row(failures.NOTHING_TO_CORRECT, found, "others")]
    notes = [
        "A failure is an image that had something to correct (MSE of the input above "
        f"{failures.LEAST_ERROR:g}) and whose error did not fall (MSE within {failures.SAME:g} of the input’s or "
        f"above), or of whose correction less than {failures.HALF:g} was made. %: of the images that had something "
        "to correct.",
        *(f"{key[:1].upper()}{key[1:]}: {rule}." for key, rule in failures.RULES.items()),
    ]
    return Table(f"failures-{section.slug}", "Failures by reason", columns, rows, notes, needs=NEEDS)


def _row(key: str, found: list[dict[str, int]], group: str) -> Row:
    cells: list[float] = []
    for counts in found:
        judged = sum(counts.values()) - counts[failures.NOTHING_TO_CORRECT]
        counted = judged and key != failures.NOTHING_TO_CORRECT
        cells += [counts[key], 100 * counts[key] / judged if counted else nan]
    return Row(key, cells, group)
