import itertools
import random
from pathlib import Path

import pytest

from nrh_dist.engine.ranking import Candidate, comparable, front, is_metric, point, rank
from nrh_dist.errors import UserError


def candidate(run, epoch=1, data="d", **values):
    one = Candidate(run, epoch, Path(run))
    one.add({name.replace("__", "/"): value for name, value in values.items()}, data)
    return one


def runs(candidates):
    return [one.run for one in candidates]


def test_by_the_first_metric_then_the_next_then_epoch_and_name():
    found = [
        candidate("d", epoch=2, mse=1.0, psnr=30.0),
        candidate("c", mse=1.0, psnr=30.0),
        candidate("b", mse=1.0, psnr=31.0),
        candidate("a", mse=2.0, psnr=40.0),
        candidate("e", mse=1.0, psnr=30.0),
    ]
    assert runs(rank(found, ["mse", "psnr"])) == ["b", "c", "e", "d", "a"]
    assert runs(rank(found, ["psnr"])) == ["a", "b", "c", "e", "d"]


def brute_force(points):
    """Off the front: some other point is nowhere higher, and somewhere lower."""
    on = []
    for one in points:
        beaten = False
        for other in points:
            not_higher = sum(other[k] <= one[k] for k in range(len(one))) == len(one)
            lower = sum(other[k] < one[k] for k in range(len(one))) > 0
            beaten = beaten or (not_higher and lower)
        on.append(not beaten)
    return on


def test_the_front_of_all_small_grids():
    grid = list(itertools.product(range(3), repeat=2))
    for points in itertools.combinations_with_replacement(grid, 3):
        assert front(points) == brute_force(points), points


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4])
def test_the_front_of_random_points_with_ties(dimensions):
    draw = random.Random(dimensions)
    for _ in range(200):
        points = [tuple(draw.randrange(4) for _ in range(dimensions)) for _ in range(draw.randrange(12))]
        assert front(points) == brute_force(points), points


def test_equal_points_stay_together_and_one_is_always_on():
    assert front([(1, 2), (1, 2), (2, 2), (0, 3)]) == [True, True, False, True]
    assert front([(5, 5)]) == [True] and front([]) == []


def test_higher_is_negated():
    assert point(candidate("a", val__psnr=3.0, val__mse=2.0), ["val/psnr", "val/mse"]) == (-3.0, 2.0)


def test_what_is_no_metric():
    assert is_metric("val/mse") and is_metric("HCOCO/worse1") and is_metric("cost/latency_ms")
    assert not any(map(is_metric, ("epoch", "lr", "val/identity_mse", "time_s")))


def test_an_unknown_metric_names_those_there():
    message = "no checkpoint with val/ssim there; metrics there: val/mse, val/psnr, cost/parameters, cost/gflop, cost/"
    with pytest.raises(UserError, match=message):
        comparable([candidate("a", val__mse=1.0, val__psnr=3.0, val__identity_mse=1.0)], ["val/ssim"])


def test_those_without_a_value_are_left_out_and_none_left_is_a_mistake():
    found = [candidate("a", mse=1.0), candidate("b", mse=2.0, lpips=0.1)]
    assert runs(comparable(found, ["mse", "lpips"])) == ["b"]
    with pytest.raises(UserError, match="no checkpoint has all of lpips, psnr"):
        comparable([candidate("a", lpips=1.0), candidate("b", psnr=2.0)], ["lpips", "psnr"])


def test_values_of_different_data_are_not_ranked_together_but_validations_are():
    with pytest.raises(UserError, match=r"mse was measured on different data \(one; two\)"):
        comparable([candidate("a", data="one", mse=1.0), candidate("b", data="two", mse=1.0)], ["mse"])
    found = [candidate("a", data="one", val__mse=1.0), candidate("b", data="two", val__mse=1.0)]
    assert comparable(found, ["val/mse"]) == found
