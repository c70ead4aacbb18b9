"""What every chapter of the page is made of: its address, pictures beside it, and values in words."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from math import isnan


@dataclass(frozen=True)
class Picture:
    """A figure beside the page: ``file`` is its relative address."""

    file: str
    alt: str
    caption: str


def slug_of(title: str) -> str:
    """The title as a part of file names and of the page's addresses; "" without a letter or digit in it."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def free_slug(slug: str, taken: Collection[str]) -> str:
    """``slug``, or with the first number behind it that makes it another than those ``taken``."""
    names = (slug, *(f"{slug}-{number}" for number in range(2, len(taken) + 2)))
    return next(name for name in names if name not in taken)


def shortened(name: str, longest: int = 30) -> str:
    """A run's name as figures and tables have room for it: its middle is left out."""
    half = longest // 2
    return name if len(name) <= longest else f"{name[: half - 1]}…{name[-half:]}"


def number(value: float, decimals: int, sign: bool = False) -> str:
    """A value for a table: thousands separated, a true minus, with ``sign`` a plus as well, an en dash for NaN."""
    return "–" if isnan(value) else f"{value:{'+' if sign else ''},.{decimals}f}".replace("-", "−")
