"""The six kinds of object of the procedural scenes: shapes, textures and colours that make each of them recognisable.

An object is sketched in a square of its own: u runs from -0.5 to 0.5 to the right, v from 0 (base) to 1 (top). Colours
are albedo in linear light, 0..1; shading is Lambert's with one light and an ambient term.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
Point = tuple[float, float]

SUBPIXEL_BITS = 6  # of the corners of polygons

# One normal for a flat part, or the normals (...x3) at the places u, v.
Surface = Array | Callable[[Array, Array], Array]

FRONT = np.array([0.0, 0.0, 1.0], np.float32)  # the normal of a surface that faces the viewer
UP = np.array([0.0, 0.8, 0.6], np.float32)


@dataclass(frozen=True)
class Light:
    """``direction`` of the light (right, up, to the viewer; length 1); two colours, linear RGB."""

    direction: Array
    colour: Array
    ambient: Array

    def on(self, normal: Array) -> Array:
        """The light that reaches surfaces with these normals (...x3 -> ...x3)."""
        facing = np.maximum(normal @ self.direction, 0)[..., None]
        return self.ambient + self.colour * facing


class Sketch:
    """A square drawing board: parts are painted over each other. ``colour`` HxWx3 linear, ``alpha`` HxW in [0, 1]."""

    def __init__(self, side: int, light: Light, rng: np.random.Generator) -> None:
        self.side, self.light, self.rng = side, light, rng
        axis = (np.arange(side, dtype=np.float32) + 0.5) / side
        self.u, self.v = np.meshgrid(axis - 0.5, 1 - axis)
        self.colour = np.zeros((side, side, 3), np.float32)
        self.alpha = np.zeros((side, side), np.float32)

    def paint(self, points: Sequence[Point], albedo: ArrayLike, surface: Surface = FRONT) -> None:
        """Fill a polygon. ``albedo`` is one colour or one for each pixel (HxWx3)."""
        corners = np.array([((u + 0.5) * self.side - 0.5, (1 - v) * self.side - 0.5) for u, v in points])
        left, top = np.maximum(corners.min(axis=0).astype(int) - 1, 0)
        right, bottom = corners.max(axis=0).astype(int) + 3
        part = (slice(top, bottom), slice(left, right))
        drawn = np.zeros(self.alpha[part].shape, np.uint8)
        subpixels = np.rint((corners - (left, top)) * 2**SUBPIXEL_BITS).astype(np.int32)
        cv2.fillPoly(drawn, [subpixels], 255, cv2.LINE_AA, SUBPIXEL_BITS)
        cover = drawn / np.float32(255)
        colour = np.broadcast_to(np.asarray(albedo, np.float32), self.colour.shape)[part]
        normal = surface(self.u[part], self.v[part]) if callable(surface) else surface
        self.colour[part] += cover[..., None] * (colour * self.light.on(normal) - self.colour[part])
        self.alpha[part] += cover * (1 - self.alpha[part])

    def ball(self, centre: Point, radii: Point, albedo: ArrayLike) -> None:
        """Fill an ellipse, shaded as an ellipsoid."""
        self.paint(ellipse(centre, radii), albedo, ellipsoid(centre, radii))

    def mottle(self, cells: int, low: float, high: float) -> Array:
        """A smooth random pattern between ``low`` and ``high`` (HxWx1), ``cells`` grains wide."""
        grain = self.rng.random((cells, cells), np.float32)
        smooth = cv2.resize(grain, (self.side, self.side), interpolation=cv2.INTER_CUBIC).clip(0, 1)
        return (low + (high - low) * smooth)[..., None].astype(np.float32)


def house(sketch: Sketch) -> None:
    """Cream plaster with a tiled red roof."""
    wall, roof = _vary(sketch, (0.78, 0.66, 0.46)), _vary(sketch, (0.50, 0.10, 0.06))
    rows = 0.8 + 0.2 * (np.sin(sketch.v * 150) > -0.6)[..., None]
    tiles = rows * (0.85 + 0.15 * (np.sin(sketch.u * 110 + 3 * np.floor(sketch.v * 24)) > 0)[..., None])
    sketch.paint([(0.17, 0.6), (0.17, 0.93), (0.27, 0.93), (0.27, 0.6)], roof * 0.8)
    sketch.paint([(-0.38, 0), (-0.38, 0.55), (0.38, 0.55), (0.38, 0)], wall * sketch.mottle(24, 0.85, 1.05))
    sketch.paint([(-0.38, 0.49), (-0.38, 0.55), (0.38, 0.55), (0.38, 0.49)], wall * 0.55)
    sketch.paint([(-0.48, 0.52), (-0.3, 0.9), (0.3, 0.9), (0.48, 0.52)], roof * tiles, UP)
    sketch.paint([(-0.08, 0), (-0.08, 0.3), (0.08, 0.3), (0.08, 0)], (0.16, 0.07, 0.03))
    for centre in (-0.23, 0.23):
        sketch.paint(_box(centre, 0.27, 0.095, 0.115), (0.8, 0.78, 0.72))
        for du, dv in ((-0.04, -0.05), (0.04, -0.05), (-0.04, 0.05), (0.04, 0.05)):
            sketch.paint(_box(centre + du, 0.27 + dv, 0.032, 0.042), (0.12, 0.2, 0.3))


def tree(sketch: Sketch) -> None:
    """A brown trunk under a leafy green crown."""
    leaf = _vary(sketch, (0.13, 0.30, 0.06))
    bark = rgb(0.20, 0.11, 0.05) * sketch.mottle(30, 0.6, 1.2)
    sketch.paint([(-0.07, 0), (-0.035, 0.45), (0.035, 0.45), (0.07, 0)], bark, cylinder(0, 0.075))
    leaves = leaf * sketch.mottle(44, 0.35, 1.5) * sketch.mottle(9, 0.8, 1.2)
    balls = [
        (-0.24, 0.46, 0.19),
        (0.24, 0.47, 0.19),
        (0, 0.5, 0.24),
        (-0.17, 0.64, 0.2),
        (0.18, 0.66, 0.2),
        (0, 0.79, 0.2),
    ]
    for u, v, radius in balls:
        du, dv = sketch.rng.uniform(-0.03, 0.03, 2)
        sketch.ball((u + du, v + dv), (radius, radius * 0.95), leaves * (0.75 + 0.4 * v))


def mushroom(sketch: Sketch) -> None:
    """A red cap with white dots on a pale stem."""
    cap, stem = _vary(sketch, (0.55, 0.045, 0.03)), _vary(sketch, (0.75, 0.66, 0.52))
    fibres = 0.9 + 0.1 * np.sin(sketch.u * 160)[..., None]
    sketch.paint(
        [(-0.13, 0), (-0.1, 0.25), (-0.09, 0.5), (0.09, 0.5), (0.1, 0.25), (0.13, 0)], stem * fibres, cylinder(0, 0.14)
    )
    sketch.paint([(-0.15, 0.36), (-0.1, 0.46), (0.1, 0.46), (0.15, 0.36), (0, 0.33)], stem * 0.85)
    sketch.paint(ellipse((0, 0.47), (0.45, 0.07)), stem * 0.45)
    normal = ellipsoid((0, 0.45), (0.49, 0.53))
    dome = [point for point in ellipse((0, 0.47), (0.48, 0.51)) if point[1] >= 0.47]
    sketch.paint(
        [*dome, *((u, 0.47 - 0.05 * np.cos(u / 0.48 * np.pi / 2)) for u in np.linspace(-0.46, 0.46, 15))], cap, normal
    )
    for u, v, radius in (
        (-0.27, 0.6, 0.055),
        (0.02, 0.63, 0.075),
        (0.3, 0.58, 0.05),
        (-0.12, 0.82, 0.055),
        (0.17, 0.8, 0.05),
    ):
        flat = 1 - 0.35 * abs(u) / 0.5
        sketch.paint(ellipse((u, v), (radius * flat, radius * 0.8)), (0.85, 0.82, 0.76), normal)


def pumpkin(sketch: Sketch) -> None:
    """Orange ribs around a green stalk."""
    skin = _vary(sketch, (0.72, 0.24, 0.025)) * sketch.mottle(14, 0.85, 1.1)
    sketch.paint([(-0.05, 0.68), (-0.02, 0.95), (0.07, 0.97), (0.04, 0.68)], (0.13, 0.17, 0.05), cylinder(0.01, 0.07))
    for offset, width in ((-0.3, 0.17), (0.3, 0.17), (-0.18, 0.18), (0.18, 0.18), (0, 0.17)):
        height = 0.37 - 0.35 * offset**2
        sketch.ball((offset, height + 0.005), (width, height), skin * (1 - 0.6 * abs(offset)))


def balloon(sketch: Sketch) -> None:
    """A hot-air balloon in blue and yellow gores, with a basket."""
    blue, yellow = _vary(sketch, (0.05, 0.17, 0.52)), _vary(sketch, (0.85, 0.60, 0.10))
    spread = 0.37 * np.sqrt(np.clip(1 - ((sketch.v - 0.63) / 0.37) ** 2, 0.02, 1)) + 1e-3
    gore = np.floor((np.arcsin(np.clip(sketch.u / spread, -1, 1)) / np.pi + 0.5) * 9).astype(int) % 2
    silk = np.where(gore[..., None] == 0, blue, yellow)
    for side in (-1, 1):
        sketch.paint(
            [(side * 0.14, 0.3), (side * 0.06, 0.11), (side * 0.07, 0.11), (side * 0.16, 0.3)], (0.2, 0.15, 0.1)
        )
    sketch.paint(_box(0, 0.06, 0.075, 0.06), rgb(0.34, 0.19, 0.08) * sketch.mottle(40, 0.7, 1.2))
    outline = [*ellipse((0, 0.63), (0.37, 0.37), 0, 180), (-0.33, 0.5), (-0.16, 0.27), (0.16, 0.27), (0.33, 0.5)]
    sketch.paint(outline, silk, ellipsoid((0, 0.62), (0.4, 0.42)))


def kite(sketch: Sketch) -> None:
    """A diamond of turquoise and magenta panels with a tail of bows."""
    one, two = _vary(sketch, (0.04, 0.45, 0.42)), _vary(sketch, (0.55, 0.05, 0.26))
    top, left, right, bottom, middle = (0.0, 0.99), (-0.33, 0.68), (0.33, 0.68), (0.0, 0.24), (0.0, 0.68)
    tilt = np.array([[-0.35, 0.2, 0.91], [0.35, 0.2, 0.91]], np.float32)
    sway = [(0.05 * np.sin(v * 40), v) for v in np.linspace(0.26, 0.02, 25)]
    sketch.paint([*((u - 0.009, v) for u, v in sway), *((u + 0.009, v) for u, v in reversed(sway))], (0.5, 0.45, 0.4))
    for v, colour in ((0.2, one), (0.12, two), (0.04, one)):
        u = 0.05 * float(np.sin(v * 40))
        sketch.paint(
            [(u - 0.07, v + 0.025), (u + 0.07, v - 0.025), (u + 0.07, v + 0.025), (u - 0.07, v - 0.025)], colour
        )
    weave = sketch.mottle(50, 0.9, 1.05)
    for corners, colour, normal in (
        ((top, left, middle), one, tilt[0]),
        ((top, right, middle), two, tilt[1]),
        ((bottom, left, middle), two, tilt[0]),
        ((bottom, right, middle), one, tilt[1]),
    ):
        sketch.paint(corners, colour * weave, normal)


class Kind(NamedTuple):
    """How to draw it, which share of its square it covers, and whether it stands on the ground."""

    draw: Callable[[Sketch], None]
    fill: float
    stands: bool


KINDS = {
    "house": Kind(house, 0.64, True),
    "tree": Kind(tree, 0.45, True),
    "mushroom": Kind(mushroom, 0.50, True),
    "pumpkin": Kind(pumpkin, 0.55, True),
    "balloon": Kind(balloon, 0.45, False),
    "kite": Kind(kite, 0.27, False),
}


def rgb(*channels: float) -> Array:
    """Three numbers as a float32 array: a colour, or a direction."""
    return np.array(channels, np.float32)


def ellipsoid(centre: Point, radii: Point) -> Surface:
    """The surface of an ellipsoid seen from the front."""
    return lambda u, v: _unit((u - centre[0]) / radii[0], (v - centre[1]) / radii[1])


def cylinder(centre: float, radius: float) -> Surface:
    """The surface of an upright cylinder."""
    return lambda u, v: _unit((u - centre) / radius, np.zeros_like(v))


def ellipse(centre: Point, radii: Point, start: float = 0, stop: float = 360) -> list[Point]:
    """Points of an ellipse between two angles in degrees, counter-clockwise from the right."""
    angles = np.radians(np.linspace(start, stop, 48))
    return [(centre[0] + radii[0] * float(np.cos(a)), centre[1] + radii[1] * float(np.sin(a))) for a in angles]


def _box(u: float, v: float, half_width: float, half_height: float) -> list[Point]:
    left, right, low, high = u - half_width, u + half_width, v - half_height, v + half_height
    return [(left, low), (left, high), (right, high), (right, low)]


def _unit(x: Array, y: Array) -> Array:
    z = np.sqrt(np.clip(1 - x**2 - y**2, 0.01, 1))
    normal = np.stack([x, y, z], axis=-1)
    return normal / np.linalg.norm(normal, axis=-1, keepdims=True)


def _vary(sketch: Sketch, albedo: tuple[float, float, float]) -> Array:
    """The kind's colour, a little different for each object: within about 8 % in each channel."""
    return rgb(*albedo) * sketch.rng.uniform(0.92, 1.08, 3).astype(np.float32)
