"""The background of the procedural scenes: sky, hills and ground under one light, in linear RGB.

A mood (hour and weather) colours everything alike, objects too: an object that was changed afterwards does not fit in
any more, which is what a harmoniser has to see.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from nrh_dist.color import linearise
from nrh_dist.data.objects import SUBPIXEL_BITS, Array, Light, rgb


class Mood(NamedTuple):
    """sRGB 0..255 of the sky at the top and at the horizon; linear colours of the light and the ambient light."""

    top: Array
    bottom: Array
    light: Array
    ambient: Array


MOODS = {
    "noon": Mood(rgb(58, 122, 205), rgb(190, 221, 240), rgb(0.88, 0.85, 0.78), rgb(0.34, 0.38, 0.46)),
    "morning": Mood(rgb(120, 160, 215), rgb(252, 216, 200), rgb(0.80, 0.66, 0.55), rgb(0.30, 0.31, 0.38)),
    "golden hour": Mood(rgb(104, 128, 178), rgb(255, 202, 122), rgb(0.92, 0.62, 0.30), rgb(0.27, 0.24, 0.27)),
    "dusk": Mood(rgb(52, 44, 104), rgb(236, 132, 112), rgb(0.50, 0.27, 0.24), rgb(0.17, 0.14, 0.24)),
    "overcast": Mood(rgb(146, 157, 168), rgb(206, 211, 214), rgb(0.30, 0.30, 0.31), rgb(0.38, 0.39, 0.41)),
    "moonlight": Mood(rgb(10, 16, 44), rgb(52, 74, 118), rgb(0.15, 0.19, 0.30), rgb(0.05, 0.065, 0.12)),
}
HORIZON = (0.42, 0.58)  # as a share of the height
# Linear albedo of meadow, dry grass, autumn leaves, sand and snow.
GROUNDS = np.array([(0.17, 0.34, 0.07), (0.30, 0.33, 0.08), (0.42, 0.26, 0.08), (0.62, 0.48, 0.27), (0.74, 0.78, 0.82)])


@dataclass(frozen=True)
class Landscape:
    """``canvas``: HxWx3 linear; ``horizon``: its row; ``trees``: HxW alpha of a forest there, zero without one."""

    canvas: Array
    horizon: int
    light: Light
    trees: Array


def draw_landscape(rng: np.random.Generator, width: int, height: int, forest: bool) -> Landscape:
    """A landscape of ``width`` x ``height`` pixels in a random mood."""
    horizon = int(height * rng.uniform(*HORIZON))
    mood = MOODS[str(rng.choice(list(MOODS)))]
    light = _light(rng, mood)
    canvas = _sky(rng, width, height, horizon, mood, light)
    haze = canvas[horizon - 1, width // 2].copy()
    ground = GROUNDS[rng.integers(len(GROUNDS))] * rng.uniform(0.9, 1.1, 3)
    lit_ground = (ground * light.on(rgb(0, 0.9, 0.44))).astype(np.float32)
    _hills(rng, canvas, horizon, lit_ground, haze)
    _ground(rng, canvas, horizon, lit_ground, haze)
    trees = _forest(rng, canvas, horizon, haze, light) if forest else np.zeros((height, width), np.float32)
    return Landscape(canvas, horizon, light, trees)


def _light(rng: np.random.Generator, mood: Mood) -> Light:
    side = rng.choice([-1.0, 1.0]) * rng.uniform(0.35, 0.75)
    direction = rgb(side, rng.uniform(0.45, 0.8), 0.6)
    strength = np.float32(rng.uniform(0.9, 1.1))
    return Light(direction / np.linalg.norm(direction), mood.light * strength, mood.ambient * strength)


def _sky(rng: np.random.Generator, wide: int, high: int, horizon: int, mood: Mood, light: Light) -> Array:
    top, bottom = linearise(mood.top / 255), linearise(mood.bottom / 255)
    share = (np.arange(high, dtype=np.float32) / horizon).clip(0, 1)[:, None, None] ** 1.3
    canvas = np.broadcast_to(top * (1 - share) + bottom * share, (high, wide, 3)).copy()
    x, y = np.meshgrid(np.arange(wide, dtype=np.float32), np.arange(high, dtype=np.float32))
    sun_x, sun_y = wide * (0.5 + 0.42 * light.direction[0] / 0.8), horizon * rng.uniform(0.2, 0.6)
    distance = np.hypot(x - sun_x, y - sun_y)[..., None]
    glow = light.colour / light.colour.max() * (0.35 * np.exp(-distance / (0.22 * wide)))
    canvas += glow * canvas.mean()
    disc = (0.045 * wide - distance).clip(0, 1)
    canvas = canvas * (1 - disc) + disc * (0.55 + 0.45 * light.colour / light.colour.max())
    clouds = _noise(rng, high, wide, (5, 4), (10, 9), (20, 20))
    cover = ((clouds - rng.uniform(0.56, 0.68)) * 4).clip(0, 0.75)[..., None] * (1 - share**3)
    return canvas * (1 - cover) + cover * (0.55 * bottom + 0.45 * (light.colour + light.ambient).clip(0, 1))


def _hills(rng: np.random.Generator, canvas: Array, horizon: int, ground: Array, haze: Array) -> None:
    high, wide = canvas.shape[:2]
    x = np.linspace(0, 1, wide, dtype=np.float32)
    y = np.arange(high, dtype=np.float32)[:, None]
    for depth in (0.78, 0.6, 0.42):
        waves = np.sum([np.sin(2 * np.pi * (f * x + rng.random())) / f for f in (1, 2.3, 4.7, 9.1)], axis=0)
        ridge = horizon - high * (0.03 + 0.16 * (depth - 0.3)) - high * 0.035 * waves
        cover = (y - ridge).clip(0, 1)[..., None]
        canvas[:horizon] += (cover * (haze * depth + (1 - depth) * ground - canvas))[:horizon]


def _ground(rng: np.random.Generator, canvas: Array, horizon: int, ground: Array, haze: Array) -> None:
    high, wide = canvas.shape[:2]
    rows = np.arange(high - horizon, dtype=np.float32)[:, None]
    depth = 1 / (0.06 + rows / (high - horizon))  # 1/16 of it at the lower edge: perspective of a plane
    x = (np.arange(wide, dtype=np.float32)[None] / wide - 0.5) * depth
    grain = rng.random((256, 256), np.float32)
    texture = np.zeros_like(x)
    for scale, weight in ((6, 0.5), (23, 0.3), (60, 0.2)):
        y = np.repeat(depth * (1.7 * scale), wide, axis=1)
        texture += weight * cv2.remap(grain, x * scale, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    texture = 0.5 + (texture - 0.5) * np.minimum(1.0, 5 / depth)  # far away it is finer than a pixel
    veil = np.exp(-rows / (0.16 * (high - horizon)))[..., None] * 0.5
    canvas[horizon:] = haze * veil + (1 - veil) * ground * (0.6 + 0.8 * texture[..., None])


def _forest(rng: np.random.Generator, canvas: Array, horizon: int, haze: Array, light: Light) -> Array:
    """Small conifers in a row along a part of the horizon; returns their alpha."""
    high, wide = canvas.shape[:2]
    drawn = np.zeros((high, wide), np.uint8)
    start, length = rng.uniform(0, 0.5) * wide, rng.uniform(0.3, 0.5) * wide
    for _ in range(26):
        x, tall = start + rng.random() * length, high * rng.uniform(0.06, 0.13)
        base = horizon + high * rng.uniform(0, 0.02)
        for step in (0.0, 0.3, 0.6):
            half, low = tall * 0.26 * (1 - 0.6 * step), base - tall * step
            corners = np.rint(np.array([(x - half, low), (x, low - tall * 0.45), (x + half, low)]) * 2**SUBPIXEL_BITS)
            cv2.fillPoly(drawn, [corners.astype(np.int32)], 255, cv2.LINE_AA, SUBPIXEL_BITS)
    alpha = drawn / np.float32(255)
    colour = 0.25 * haze + 0.75 * rgb(0.05, 0.13, 0.05) * light.on(rgb(0, 0.6, 0.8))
    canvas[:] = canvas * (1 - alpha[..., None]) + alpha[..., None] * colour
    return alpha


def _noise(rng: np.random.Generator, high: int, wide: int, *grids: tuple[int, int]) -> Array:
    """Smooth noise in [0, 1]: coarse to fine (rows, columns), each half as strong as the one before."""
    total, weight = np.zeros((high, wide), np.float32), 1.0
    for rows, columns in grids:
        total += weight * cv2.resize(
            rng.random((rows, columns), np.float32), (wide, high), interpolation=cv2.INTER_CUBIC
        )
        weight /= 2
    return (total / (2 - 2 * weight)).clip(0, 1)
