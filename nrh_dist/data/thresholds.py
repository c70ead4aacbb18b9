"""Human thresholds of single photos: the smallest exposure shift of the object that people notice.

A CSV file with at least the columns ``name`` (of the sample), ``negative_gain`` (in (0, 1)) and ``positive_gain``
(above 1): gains on L of CIE Lab. In stops: their log2.
"""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nrh_dist.errors import UserError

COLUMNS = ("name", "negative_gain", "positive_gain")


def read(path: Path, names: Sequence[str]) -> np.ndarray:
    """The thresholds of N samples in stops, N x 2 (negative, positive); nan where the file does not name the sample.

    Raises ``UserError``: an unreadable file, a missing column, a bad or repeated line, a file that names no sample.
    """
    measured = _read(path)
    unknown = (math.nan, math.nan)
    found = np.array([measured.get(name, unknown) for name in names], np.float64).reshape(-1, 2)
    if np.isnan(found).all():
        first, own = next(iter(measured), "nothing"), names[0] if names else "nothing"
        raise UserError(f"{path} has thresholds of {first} and others, but none of the photos at hand, such as {own}")
    return found


def _read(path: Path) -> dict[str, tuple[float, float]]:
    measured: dict[str, tuple[float, float]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if missing := [column for column in COLUMNS if column not in (reader.fieldnames or [])]:
                raise UserError(f"{path} has no column {missing[0]}; it must have {', '.join(COLUMNS)}")
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if row["name"] in measured:
                    raise UserError(f"{where}: {row['name']} comes twice")
                measured[row["name"]] = _stops(row, where)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path} is not a readable CSV file: {reason}") from None
    return measured


def _stops(row: dict[str, str], where: str) -> tuple[float, float]:
    try:
        negative, positive = float(row["negative_gain"]), float(row["positive_gain"])
    except (TypeError, ValueError):
        negative = positive = math.nan
    if not (0 < negative < 1 < positive < math.inf):
        raise UserError(
            f"{where}: negative_gain={row['negative_gain']}, positive_gain={row['positive_gain']}: "
            "they must be in (0, 1) and above 1"
        )
    return math.log2(negative), math.log2(positive)
