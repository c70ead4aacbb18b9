"""Procedural scenes: two or three objects in a landscape, all under the same light.

Drawn at twice the size in linear light, then reduced: edges of objects and masks are soft.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from nrh_dist.color import delinearise
from nrh_dist.data.landscape import draw_landscape
from nrh_dist.data.objects import KINDS, Array, Light, Sketch

SUPERSAMPLING = 2
LAYOUTS = 16  # tried for each scene
LARGE = (0.1, 0.65)  # share of the picture, before anything is hidden: of one object
SMALL = (0.025, 0.13)  # and of the others
FILM_GRAIN = 0.004  # deviation, of 1


@dataclass(frozen=True)
class Drawn:
    """One object: its kind and what can be seen of it, HxW uint8 with grey edges."""

    kind: str
    mask: NDArray[np.uint8]


@dataclass(frozen=True)
class Scene:
    """``photo`` HxWx3 uint8; its objects; ``forest``: HxW uint8, the trees at the horizon, zero without them."""

    photo: NDArray[np.uint8]
    objects: list[Drawn]
    forest: NDArray[np.uint8]


@dataclass(frozen=True)
class _Place:
    """A square for an object on the large canvas: left, top and side in pixels."""

    kind: str
    left: int
    top: int
    side: int


def draw(rng: np.random.Generator, width: int, height: int, forest: bool = False) -> Scene:
    """A scene of ``width`` x ``height`` pixels, with trees at the horizon if ``forest``; all chance is from ``rng``."""
    wide, high = width * SUPERSAMPLING, height * SUPERSAMPLING
    landscape = draw_landscape(rng, wide, high, forest)
    canvas, trees = landscape.canvas, landscape.trees
    places = _places(rng, wide, high, landscape.horizon)
    masks: list[Array] = []
    for place in places:
        alpha = _stand(rng, canvas, place, landscape.light)
        masks = [mask * (1 - alpha) for mask in masks] + [alpha]
        trees = trees * (1 - alpha)
    grain = FILM_GRAIN * rng.standard_normal((high, wide, 1), np.float32)
    return Scene(
        photo=_reduce(delinearise(canvas.clip(0, 1)) + grain, width, height),
        objects=[Drawn(place.kind, _reduce(mask, width, height)) for place, mask in zip(places, masks, strict=True)],
        forest=_reduce(trees, width, height),
    )


def _places(rng: np.random.Generator, wide: int, high: int, horizon: int) -> list[_Place]:
    """One large and one or two small objects of different kinds, far to near: of several layouts the clearest."""
    kinds = [str(kind) for kind in rng.choice(list(KINDS), int(rng.integers(2, 4)), replace=False)]
    shares = [_log_uniform(rng, *LARGE)] + [_log_uniform(rng, *SMALL) for _ in kinds[1:]]
    layouts = []
    for _ in range(LAYOUTS):
        places = [_place(rng, kind, share, wide, high, horizon) for kind, share in zip(kinds, shares, strict=True)]
        in_air = [place for place in places if not KINDS[place.kind].stands]
        on_ground = [place for place in places if KINDS[place.kind].stands]
        far = [place for place in in_air if place is places[0]]  # small ones fly before all else
        near = [place for place in in_air if place is not places[0]]
        layouts.append(far + sorted(on_ground, key=lambda place: place.top + place.side) + near)
    return max(layouts, key=lambda layout: _least_visible(layout, wide, high))


def _place(rng: np.random.Generator, kind: str, share: float, wide: int, high: int, horizon: int) -> _Place:
    side = int(min(np.sqrt(share * wide * high / KINDS[kind].fill), 1.1 * high))
    left = int(rng.uniform(-0.1 * side, wide - 0.9 * side))
    if KINDS[kind].stands:
        nearness = min(1.0, side / (0.9 * high))  # the larger, the nearer
        base = horizon + (high - horizon) * rng.uniform(0.15 + 0.55 * nearness, 0.95)
        return _Place(kind, left, int(base) - side, side)
    lowest = max(0.02 * high, 0.8 * horizon - 0.6 * side)
    return _Place(kind, left, int(rng.uniform(-0.04 * side, lowest)), side)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _least_visible(layout: list[_Place], wide: int, high: int) -> float:
    """Of the object that is hidden most: the share of its square inside the picture and not behind a nearer square."""
    owner = np.full((high // 4, wide // 4), -1)
    for number, place in enumerate(layout):
        rows = slice(max(0, place.top // 4), max(0, (place.top + place.side) // 4))
        columns = slice(max(0, place.left // 4), max(0, (place.left + place.side) // 4))
        owner[rows, columns] = number
    return min(float((owner == number).sum() * 16 / place.side**2) for number, place in enumerate(layout))


def _stand(rng: np.random.Generator, canvas: Array, place: _Place, light: Light) -> Array:
    """Draw the object and its shadow on the canvas; returns the object's alpha."""
    high, wide = canvas.shape[:2]
    sketch = Sketch(place.side, light, rng)
    KINDS[place.kind].draw(sketch)
    if KINDS[place.kind].stands:
        shadow = np.zeros((high, wide), np.float32)
        reach = -light.direction[0] * 0.3 * place.side
        centre = (int(place.left + place.side / 2 + reach), place.top + place.side)
        cv2.ellipse(shadow, centre, (int(0.45 * place.side), max(2, int(0.06 * place.side))), 0, 0, 360, 0.5, -1)
        canvas *= 1 - cv2.blur(shadow, (place.side // 8 + 1, place.side // 16 + 1))[..., None]
    top, left = max(0, place.top), max(0, place.left)
    bottom, right = min(high, place.top + place.side), min(wide, place.left + place.side)
    inner = (slice(top - place.top, bottom - place.top), slice(left - place.left, right - place.left))
    alpha = np.zeros((high, wide), np.float32)
    alpha[top:bottom, left:right] = sketch.alpha[inner]
    region = canvas[top:bottom, left:right]
    region *= 1 - sketch.alpha[inner][..., None]
    region += sketch.colour[inner]
    return alpha


def _reduce(values: Array, width: int, height: int) -> NDArray[np.uint8]:
    smaller = cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA)
    return np.rint(smaller.clip(0, 1) * 255).astype(np.uint8)
