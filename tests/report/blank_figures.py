"""Figures of the right size with nothing on them, for tests of pages whose figures nobody looks at: drawing is slow."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

DOTS_PER_INCH = 20


def save(figure: Figure, path: Path, **options: Any) -> None:
    """Instead of ``Figure.savefig``."""
    width, height = figure.get_size_inches()
    Image.new("L", (round(width * DOTS_PER_INCH), round(height * DOTS_PER_INCH)), 255).save(path)
