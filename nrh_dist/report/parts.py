"""What every chapter of the page is made of: pictures beside it, and values in words."""

from dataclasses import dataclass
from math import isnan


@dataclass(frozen=True)
class Picture:
    """A figure beside the page: ``file`` is its relative address."""

    file: str
    alt: str
    caption: str


def shortened(name: str, longest: int = 30) -> str:
    """A run's name as figures and tables have room for it: its middle is left out."""
    half = longest // 2
    return name if len(name) <= longest else f"{name[: half - 1]}…{name[-half:]}"


def number(value: float, decimals: int, sign: bool = False) -> str:
    """A value for a table: thousands separated, a true minus, with ``sign`` a plus as well, an en dash for NaN."""
    return "–" if isnan(value) else f"{value:{'+' if sign else ''},.{decimals}f}".replace("-", "−")
