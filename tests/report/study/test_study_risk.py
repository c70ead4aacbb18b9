"""What is changed first, what that does, and how far a system gets: on values that can be counted by hand."""

import numpy as np
import pytest

from nrh_dist.report.study import risk
from nrh_dist.report.study.collect import System, Test

Test.__test__ = False  # a test set, and no test


def made(identity):
    count = len(identity)
    words, numbers = np.full(count, ""), np.arange(count)
    return Test("test-lab", 64, numbers, np.full(count, 0.1), words, words, np.array(identity, float), {})


def system(mse, change):
    mse, change = np.array(mse, float), np.array(change, float)
    return System("gated", tuple(range(len(mse))), mse, mse, mse, change)


def test_what_changes_most_is_changed_first():
    test = made([100, 100, 100, 100])
    found = risk.curve(test, system([[90, 40, 130, 100.5]], [[5, 30, 20, 1]]))
    assert found.changed.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert found.worse1.tolist() == [0, 0, 0.25, 0.25, 0.25], "by half a unit is not worse"
    assert found.gain.tolist() == [0, 15, 7.5, 10, 9.875]


def test_each_seed_has_its_own_order_and_all_are_averaged():
    test = made([100, 100])
    found = risk.curve(test, system([[50, 200], [200, 50]], [[2, 1], [1, 2]]))
    assert found.gain.tolist() == [0, 25, -25] and found.worse1.tolist() == [0, 0, 0.5]


def test_all_changed_is_the_system_itself():
    random = np.random.default_rng(0)
    identity, mse = random.lognormal(5, 1, 500), random.lognormal(5, 1, (3, 500))
    found = risk.curve(made(identity), system(mse, random.random((3, 500))))
    assert found.gain[-1] == pytest.approx((identity - mse).mean())
    assert found.worse1[-1] == pytest.approx((mse - identity > 1).mean())
