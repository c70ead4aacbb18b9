"""sRGB <-> CIE Lab, for numpy arrays (OpenCV, float32) and for torch tensors.

sRGB is in [0, 1] with the transfer curve of IEC 61966-2-1; Lab has white point D65, 2 degree observer, L in [0, 100],
a and b roughly in [-110, 110]. This module needs no torch: the tensor functions use methods of their tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

FloatImage = NDArray[np.float32]

# Linear sRGB to XYZ (IEC 61966-2-1) and the D65 white point of the 2 degree observer (ASTM E308).
RGB_TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
WHITE_D65 = np.array([0.95047, 1.0, 1.08883])

# Lab takes the cube root of XYZ / white above DELTA**3 and a line below it (CIE 15).
DELTA = 6 / 29
CUBE_ROOTS_TO_LAB = np.array([[0.0, 116.0, 0.0], [500.0, -500.0, 0.0], [0.0, 200.0, -200.0]])
LAB_OFFSET = (-16.0, 0.0, 0.0)


def linearise(rgb: NDArray[Any]) -> FloatImage:
    """sRGB values in [0, 1] to linear light in [0, 1]; any shape."""
    rgb = np.asarray(rgb, np.float32)
    return np.where(rgb <= 0.04045, rgb / 12.92, ((np.maximum(rgb, 0) + 0.055) / 1.055) ** 2.4).astype(np.float32)


def pixels_to_lab(pixels: NDArray[np.uint8]) -> FloatImage:
    """Nx3 sRGB levels 0..255 to Nx3 float32 Lab, within 0.03 of exact; no power is taken, the curve is a table."""
    linear = cv2.LUT(pixels[None], LINEAR_OF_LEVEL)
    return cv2.cvtColor(linear, cv2.COLOR_LRGB2Lab)[0]


def delinearise(linear: NDArray[Any]) -> FloatImage:
    """Linear light in [0, 1] to sRGB values in [0, 1]; any shape."""
    linear = np.asarray(linear, np.float32)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055).astype(np.float32)


LINEAR_OF_LEVEL = linearise(np.arange(256) / 255)


def rgb_to_lab(rgb: NDArray[Any]) -> FloatImage:
    """HxWx3 sRGB in [0, 1] to HxWx3 float32 Lab, within 0.03 of exact.

    The curve is applied here because OpenCV's own sRGB route interpolates in a coarse table: 0.4 off and slower.
    """
    return cv2.cvtColor(linearise(rgb), cv2.COLOR_LRGB2Lab)  # type: ignore[return-value]


def lab_to_rgb(lab: FloatImage) -> FloatImage:
    """HxWx3 float32 Lab to HxWx3 sRGB, each channel clipped to [0, 1].

    A negative Z, which a dark and very yellow Lab would need, is taken for 0 on the axis of Lab, as in scikit-image.
    """
    lab = np.asarray(lab, np.float32)
    most = (lab[..., 0] + 16) * np.float32(200 / 116)  # the b at which Z is 0
    if (lab[..., 2] > most).any():
        lab = lab.copy()
        np.minimum(lab[..., 2], most, out=lab[..., 2])
    return cv2.cvtColor(lab, cv2.COLOR_Lab2RGB)  # type: ignore[return-value]


def luminance_shift_stops(before: NDArray[Any], after: NDArray[Any]) -> float:
    """log2(mean L after / mean L before): the gain on L* in stops. Both means must be above 0."""
    return float(np.log2(np.mean(after, dtype=np.float64) / np.mean(before, dtype=np.float64)))


def rgb_to_lab_t(rgb: Tensor) -> Tensor:
    """N3HW sRGB in [0, 1] to N3HW Lab; the twin of ``rgb_to_lab`` for tensors of any float type and device."""
    xyz = _mix(linearise_t(rgb), RGB_TO_XYZ / WHITE_D65[:, None])
    f = (xyz / (3 * DELTA**2) + 4 / 29).where(xyz <= DELTA**3, xyz.clamp(min=0.0) ** (1 / 3))
    return _mix(f, CUBE_ROOTS_TO_LAB) + f.new_tensor(LAB_OFFSET).view(3, 1, 1)


def lab_to_rgb_t(lab: Tensor) -> Tensor:
    """N3HW Lab to N3HW sRGB, each channel clipped to [0, 1]; the twin of ``lab_to_rgb``."""
    f = _mix(lab - lab.new_tensor(LAB_OFFSET).view(3, 1, 1), np.linalg.inv(CUBE_ROOTS_TO_LAB))
    f[:, 2].clamp_(min=0)
    xyz = (3 * DELTA**2 * (f - 4 / 29)).where(f <= DELTA, f**3)
    linear = _mix(xyz, np.linalg.inv(RGB_TO_XYZ / WHITE_D65[:, None])).clamp(0, 1)
    return delinearise_t(linear).clamp(0, 1)


def linearise_t(rgb: Tensor) -> Tensor:
    """sRGB values to linear light, both in [0, 1]; any shape."""
    return (rgb / 12.92).where(rgb <= 0.04045, ((rgb.clamp(min=0.0) + 0.055) / 1.055) ** 2.4)


def delinearise_t(linear: Tensor) -> Tensor:
    """Linear light to sRGB values, both in [0, 1]; any shape."""
    return (12.92 * linear).where(linear <= 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055)


def luminance_t(linear: Tensor) -> Tensor:
    """Y of N3HW linear light: N1HW in [0, 1]."""
    weights = linear.new_tensor(RGB_TO_XYZ[1].tolist()).view(3, 1, 1)
    return (linear * weights).sum(dim=1, keepdim=True)


def _mix(image: Tensor, matrix: NDArray[np.float64]) -> Tensor:
    """Multiply the channels of N3HW by a 3x3 matrix."""
    weights = image.new_tensor(matrix.tolist())
    return (weights @ image.flatten(2)).view(image.shape)  # 33 @ N3(HW) -> N3HW
