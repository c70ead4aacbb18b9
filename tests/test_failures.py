import numpy as np
import pytest

from nrh_dist.failures import NOTHING_TO_CORRECT, RULES, SUCCESS, groups

nan = float("nan")


@pytest.mark.parametrize(
    ("mse", "identity", "correction", "outside", "detected", "group"),
    [
        (10, 100, 0.9, 0.1, 0.9, SUCCESS),
        (100, 100, 0.0, nan, 0.4, "not detected"),
        (100, 100, 0.0, nan, 0.5, "under-corrected"),
        (100, 100, 0.0, nan, nan, "under-corrected"),
        (120, 100, 0.9, 0.6, 0.9, "corrected the wrong place"),
        (120, 100, -0.1, 0.5, 0.9, "wrong way"),
        (40, 100, 0.49, 0.1, 0.9, "under-corrected"),
        (40, 100, 0.5, 0.1, 0.9, SUCCESS),
        (130, 100, 1.6, 0.1, 0.9, "over-corrected"),
        (130, 100, 1.0, 0.1, 0.9, "other"),
        (130, 100, nan, nan, nan, "other"),
        (99.98, 100, 1.0, 0.1, nan, SUCCESS),
        (99.995, 100, 1.0, 0.1, nan, "other"),
        (5, 1, 0.0, 0.9, 0.0, NOTHING_TO_CORRECT),
        (nan, 100, nan, nan, 0.9, ""),
    ],
)
def test_the_first_rule_that_fits_names_the_group(mse, identity, correction, outside, detected, group):
    numbers = (np.array([value], float) for value in (mse, identity, correction, outside, detected))
    assert groups(*numbers).tolist() == [group]
    assert group in {*RULES, SUCCESS, NOTHING_TO_CORRECT, ""}


def test_every_image_is_in_one_group():
    random = np.random.default_rng(0)
    columns = [random.uniform(0, 3, 1000) for _ in range(2)] + [random.normal(0.7, 1, 1000), *random.random((2, 1000))]
    for column in columns[2:]:
        column[random.random(1000) < 0.2] = nan
    found = groups(*columns)
    assert set(found) <= {*RULES, SUCCESS, NOTHING_TO_CORRECT} and len(found) == 1000
