"""How well predicted thresholds agree with people's, beside a constant that looks at no photo."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import spearmanr

from nrh_dist.data.shifts import NEGATIVE_MEAN, POSITIVE_MEAN

SIGNS = ("negative", "positive", "both")
DRAWS = 2000  # of the bootstrap
BETTER, NOT_SHOWN, UNKNOWN = "better than the constant", "not shown to beat the constant", "no human thresholds here"


class Constant(NamedTuple):
    """The same thresholds for every photo, as magnitudes in stops: what a detector has to beat."""

    negative: float
    positive: float
    source: str


def constant_of(training: np.ndarray) -> Constant:
    """The medians of the human thresholds of training photos (N x 2 in stops, nan where not measured).

    Without any, the published means.
    """
    measured = training[~np.isnan(training).any(axis=1)]
    if not len(measured):
        return Constant(-NEGATIVE_MEAN, POSITIVE_MEAN, "published means")
    negative, positive = np.median(np.abs(measured), axis=0)
    return Constant(float(negative), float(positive), f"median of {len(measured)} training photos")


def compare(
    predicted: np.ndarray, human: np.ndarray, never: np.ndarray, photos: Sequence[str], constant: Constant
) -> list[dict[str, Any]]:
    """One dictionary for each of ``SIGNS``: errors of detector and constant, their difference, rank correlation.

    ``predicted`` and ``human`` are N x 2 magnitudes in stops (negative, positive), ``never`` N x 2 whether the
    detector never crossed. An error is the mean absolute difference; of both signs, their mean. 95 % intervals by a
    bootstrap over ``photos`` (N names); the difference is paired. Values are None where nothing can be computed.
    """
    guess = np.array([constant.negative, constant.positive])
    errors = {"error": np.abs(predicted - human), "constant": np.abs(guess - human)}
    errors["difference"] = errors["error"] - errors["constant"]
    draws = _draws(photos)
    found = []
    for number, sign in enumerate(SIGNS):
        columns = slice(None) if sign == "both" else slice(number, number + 1)
        entry: dict[str, Any] = {"sign": sign, "photos": len(human), "never_crossed": int(never[:, columns].sum())}
        for name, values in errors.items():
            by_photo = values[:, columns].mean(axis=1)
            low, high = _interval([float(by_photo[rows].mean()) for rows in draws])
            value = float(by_photo.mean()) if len(by_photo) else None
            full = "constant_error" if name == "constant" else name
            entry |= {full: value, f"{name}_low": low, f"{name}_high": high}

        low, high = _interval([_rank_correlation(predicted[rows, columns], human[rows, columns]) for rows in draws])
        value = _rank_correlation(predicted[:, columns], human[:, columns])
        found.append(entry | {"rank_correlation": value, "rank_low": low, "rank_high": high})
    return found


def verdict(compared: Sequence[dict[str, Any]]) -> str:
    """Whether the detector beats the constant: only where the interval of the difference of both signs is below 0."""
    both = compared[SIGNS.index("both")]
    if not both["photos"]:
        return UNKNOWN
    return BETTER if both["difference_high"] is not None and both["difference_high"] < 0 else NOT_SHOWN


def _rank_correlation(predicted: np.ndarray, human: np.ndarray) -> float | None:
    """Spearman's, of each sign, averaged; None where one side does not vary."""
    found = []
    for one, other in zip(predicted.T, human.T, strict=True):
        if len(set(one)) < 2 or len(set(other)) < 2:
            return None
        found.append(float(spearmanr(one, other).statistic))
    return float(np.mean(found))


def _draws(photos: Sequence[str]) -> list[np.ndarray]:
    """The rows of ``DRAWS`` samples of photos with replacement; all rows of a photo come together. None under 10."""
    names, of_row = np.unique(np.array(photos), return_inverse=True)
    if len(names) < 10:
        return []
    rows = [np.flatnonzero(of_row == number) for number in range(len(names))]
    random = np.random.default_rng(0)
    drawn = random.integers(len(names), size=(DRAWS, len(names)))
    return [np.concatenate([rows[number] for number in chosen]) for chosen in drawn]


def _interval(drawn: Sequence[float | None]) -> tuple[float | None, float | None]:
    values = [value for value in drawn if value is not None]
    if not values:
        return None, None
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)
