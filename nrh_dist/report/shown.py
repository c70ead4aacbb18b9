"""What a page shows of a section: tables as data, and analyses made of sentences, tables and charts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isnan, nan

from nrh_dist.report import paper
from nrh_dist.report.parts import Picture


@dataclass(frozen=True)
class Column:
    """``key`` heads the CSV column, ``title`` the page's; neighbours with the same ``group`` share a heading."""

    key: str
    title: str
    group: str = ""
    decimals: int = 2


@dataclass(frozen=True)
class Row:
    """NaN is "not available". ``bold`` are the columns in which this row is the best without the mask."""

    label: str
    values: list[float]
    group: str = ""
    model: str = ""
    run: str = ""
    decimals: int | None = None
    bold: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Table:
    """What the page shows and what the files hold. The page shows the first ``most`` rows, the files all.

    ``needs`` are keys of the protocol that a reader needs though no column is named after them.
    """

    name: str
    caption: str
    columns: list[Column]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    most: int | None = None
    needs: tuple[str, ...] = ()

    def decimals(self, row: Row, column: int) -> int:
        """Of a cell: the row's where it has some, but counts stay whole."""
        own = self.columns[column].decimals
        return own if row.decimals is None or own == 0 else row.decimals

    def head(self) -> "Table":
        """The table as the page shows it."""
        if self.most is None or len(self.rows) <= self.most:
            return self
        note = f"The first {self.most} of {len(self.rows):,} rows; all are in the files."
        return replace(self, rows=self.rows[: self.most], notes=[*self.notes, note])


@dataclass(frozen=True)
class Analysis:
    """One question to the images of a section. ``slug`` is unique within it; the charts are drawn."""

    slug: str
    title: str
    sentences: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    charts: list[Picture] = field(default_factory=list)


def with_best(rows: Sequence[Row], better: Mapping[int, Callable[..., float]]) -> list[Row]:
    """The rows, each with the columns in which it beats all others that do not see the mask."""
    candidates = [row for row in rows if row.model and row.model not in paper.SEES_THE_MASK]
    bold: dict[int, set[int]] = {id(row): set() for row in rows}
    for column, choose in better.items():
        known = [row for row in candidates if not isnan(row.values[column])]
        best = choose((row.values[column] for row in known), default=nan)
        for row in known:
            if row.values[column] == best:
                bold[id(row)].add(column)
    return [replace(row, bold=frozenset(bold[id(row)])) for row in rows]


def percent(value: float, reference: float) -> float:
    """The change from ``reference`` to ``value`` in percent; NaN where there is none to compare with."""
    return nan if isnan(reference) or reference == 0 else 100 * (value / reference - 1)


def spaced(label: str) -> str:
    """A bin such as 0-10% as the page writes it."""
    return label.replace("-", "–").replace("%", " %")
