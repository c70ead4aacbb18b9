"""Why a harmonised image is no success: one group an image, by rules on a few numbers of that image.

A failure is an image that had something to correct (MSE of the input above 1) and whose error did not fall (MSE within
0.01 of the input's or above), or of whose correction less than half was made. The numbers are those of per_image.csv.
"""

import numpy as np

NOTHING_TO_CORRECT, SUCCESS = "nothing to correct", "success"
# The first that fits counts.
RULES = {
    "not detected": "the detector's mask is below 0.5 on average inside the object",
    "corrected the wrong place": "more than half of the squared change lies outside the object",
    "wrong way": "the object was moved away from the real photo",
    "under-corrected": "less than half of the correction was made",
    "over-corrected": "more than one and a half times the correction was made",
    "other": "the error did not fall, and none of the other reasons fits",
}
DETECTED = 0.5  # of the detector's mask inside the object, on average
HERE = 0.5  # of the squared change may lie outside the object
HALF, TOO_MUCH = 0.5, 1.5  # of the wanted change
LEAST_ERROR = 1.0  # MSE of the input, 0..255 scale
SAME = 0.01  # MSE


def groups(
    mse: np.ndarray,
    identity_mse: np.ndarray,
    correction: np.ndarray,
    change_outside: np.ndarray,
    detected: np.ndarray,
) -> np.ndarray:
    """Of each of N images: a key of ``RULES``, ``SUCCESS``, ``NOTHING_TO_CORRECT``, or "" where it has no MSE.

    All are float arrays of N; nan means that a number is not there (no detector, an empty mask), and decides nothing.
    """
    failed = (mse >= identity_mse - SAME) | (correction < HALF)
    fits = {
        "not detected": detected < DETECTED,
        "corrected the wrong place": change_outside > HERE,
        "wrong way": correction < 0,
        "under-corrected": correction < HALF,
        "over-corrected": correction > TOO_MUCH,
        "other": np.ones(len(mse), bool),
    }
    conditions = [np.isnan(mse) | np.isnan(identity_mse), identity_mse <= LEAST_ERROR, ~failed, *fits.values()]
    return np.select(conditions, ["", NOTHING_TO_CORRECT, SUCCESS, *fits], "")
