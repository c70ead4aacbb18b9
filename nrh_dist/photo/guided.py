"""Guided filter: what is known at a low resolution, as a local linear function of the picture's own colours.

He, Sun, Tang, "Guided image filtering" (2013), with colour guides, in the fast form of He and Sun (2015): the function
is fitted at the low resolution, and its smooth coefficients are what is enlarged. Put before the sharp picture, it
follows the picture's edges instead of smearing over them. Arrays: H x W x channels, float.
"""

import cv2
import numpy as np

Array = np.ndarray


def fit(guide: Array, target: Array, radius: int, epsilon: float) -> tuple[Array, Array]:
    """``slope`` H x W x K x C and ``offset`` H x W x K with target ~ slope @ guide + offset around each pixel.

    ``guide`` H x W x C and ``target`` H x W x K in the same units. Windows are (2 radius + 1) squared; ``epsilon``, in
    these units squared, is the variance of the guide up to which its texture counts as none.
    """
    channels = guide.shape[-1]
    guide, target = guide.astype(np.float64), target.astype(np.float64)
    mean, target_mean = _mean(guide, radius), _mean(target, radius)
    variance = _products(guide, guide, mean, mean, radius) + epsilon * np.eye(channels)
    covariance = _products(guide, target, mean, target_mean, radius)
    slope = np.swapaxes(np.linalg.solve(variance, covariance), -1, -2)  # H x W x K x C
    offset = target_mean - np.einsum("hwkc,hwc->hwk", slope, mean)
    flat = _mean(slope.reshape(*slope.shape[:2], -1), radius)
    return flat.reshape(slope.shape), _mean(offset, radius)


def _products(one: Array, other: Array, one_mean: Array, other_mean: Array, radius: int) -> Array:
    """Covariances over the windows, H x W x C x K."""
    products = one[..., :, None] * other[..., None, :]
    flat = _mean(products.reshape(*products.shape[:2], -1), radius).reshape(products.shape)
    return flat - one_mean[..., :, None] * other_mean[..., None, :]


def _mean(values: Array, radius: int) -> Array:
    """Over windows, mirrored at the border."""
    side = 2 * radius + 1
    means = [cv2.blur(np.ascontiguousarray(values[..., one]), (side, side)) for one in range(values.shape[-1])]
    return np.stack(means, axis=-1)
