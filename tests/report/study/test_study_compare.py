import numpy as np
import pytest
from scipy.stats import norm

from nrh_dist.report.study import compare
from nrh_dist.report.study.collect import System, Test

PHOTOS, EACH = 120, 3
IMAGES = PHOTOS * EACH
Test.__test__ = False  # a test set, and no test


def system(name, values):
    values = np.atleast_2d(values)
    return System(name, tuple(range(len(values))), values, 40 - values / 50, 5 * values, np.zeros_like(values))


def made(seeds=3, **shifts):
    """A test of 120 photos with three composites each; ``shifts``: what each system adds to the input's error."""
    random = np.random.default_rng(0)
    identity = random.lognormal(4, 1, IMAGES)
    photos = np.repeat(np.arange(PHOTOS), EACH)
    by_photo = random.normal(0, 4, PHOTOS)[photos]
    systems = {"identity": system("identity", identity)}
    for name, shift in shifts.items():
        noise = random.normal(0, 2, (seeds, IMAGES)) + by_photo
        systems[name] = system(name, identity + shift + noise)
    category = np.where(np.arange(IMAGES) % 4 == 0, "person", np.where(np.arange(IMAGES) % 2 == 0, "dog", "cup"))
    area = 0.001 + 0.6 * (np.arange(IMAGES) * 127 % IMAGES) / IMAGES
    return Test("test-lab", 64, photos, area, category, np.full(IMAGES, "COCOExp"), identity, systems)


def test_an_ordering_that_is_there_is_found_and_none_where_there_is_none():
    clear = made(dih_nm=30.0, ptc_att_dih=20.0, ptc_dih=10.0, dih_m=0.0)
    assert [one.holds for one in compare.ordering(clear)] == [-1] * 6
    turned = made(dih_nm=0.0, ptc_att_dih=20.0, ptc_dih=10.0, dih_m=30.0)
    assert {(one.one, one.other): one.holds for one in compare.ordering(turned)}["ptc_dih", "dih_nm"] == 1
    equal = made(dih_nm=0.0, ptc_att_dih=0.0, ptc_dih=0.0, dih_m=0.0)
    assert [one.holds for one in compare.ordering(equal)] == [0] * 6


def test_a_seed_that_disagrees_spoils_the_claim():
    test = made(gated=-10.0)
    values = test.systems["gated"].mse.copy()
    values[2] += 11
    spoilt = made(gated=-10.0)
    spoilt.systems["gated"] = system("gated", values)
    (before,), (after,) = (compare.against_identity(one, ["gated"]) for one in (test, spoilt))
    assert before.holds == -1
    assert after.interval[1] < 0 and after.by_seed[2] > 0 and after.holds == 0


def test_one_seed_shows_nothing():
    (found,) = compare.against_identity(made(seeds=1, gated=-10.0), ["gated"])
    assert found.interval[1] < 0 and found.p < 0.05 and found.holds == 0
    assert compare.against_identity(made(seeds=2, gated=-10.0), ["gated"])[0].holds == -1


def test_after_one_that_fails_holm_claims_nothing_more():
    """p of 0.001, 0.03 and 0.04: the third is below its own level, but the second failed at 0.025."""
    random = np.random.default_rng(1)
    test, names = made(seeds=2), ("one", "two", "three")
    noise = random.normal(0, 5, IMAGES)
    means = np.bincount(test.photos, noise) / EACH
    noise -= noise.mean()
    deviation = (means - means.mean()).std() / np.sqrt(PHOTOS)
    for name, p in zip(names, (0.001, 0.03, 0.04), strict=True):
        shift = norm.ppf(1 - p / 2) * deviation
        test.systems[name] = system(name, np.tile(test.identity + noise + shift, (2, 1)))
    found = compare.differences(test, [(name, "identity") for name in names])
    assert found[2].interval[0] > 0, "by itself it would be claimed"
    assert [one.holds for one in found] == [1, 0, 0]


def test_intervals_are_those_of_holm():
    """Of m tests the smallest p has the level 0.05 / m, the largest 0.05: as by hand from the same draws."""
    test = made(seeds=1, one=0.9, two=0.3, three=5.0)
    pairs = [(name, "identity") for name in ("one", "two", "three")]
    found = compare.differences(test, pairs)
    order = np.argsort([one.p for one in found], kind="stable")
    for place, number in enumerate(order):
        level = 0.05 / (3 - place)
        change = test.systems[pairs[number][0]].mse[0] - test.identity
        means = np.bincount(test.photos, change) / EACH
        sd = means.std() / np.sqrt(PHOTOS)
        low, high = found[number].interval
        wide = norm.ppf(1 - level / 2) * sd
        assert low == pytest.approx(change.mean() - wide, abs=0.15) and high == pytest.approx(
            change.mean() + wide, abs=0.15
        )
    assert found[2].interval[1] - found[2].interval[0] > found[1].interval[1] - found[1].interval[0]


def test_a_difference_is_of_the_same_seeds():
    test = made(seeds=3, gated=0.0, other=0.0)
    test.systems["other"] = system("other", test.systems["gated"].mse[:1] - 7)
    (found,) = compare.differences(test, [("other", "gated")])
    assert found.value == pytest.approx(-7) and found.by_seed == pytest.approx((-7.0,))


def test_groups_cover_all_images_and_say_which_are_too_small_to_judge():
    test = made(gated=0.0)
    groups = compare.size_groups(test)
    assert sum(group.chosen.sum() for group in groups) == IMAGES and all(group.is_judged for group in groups)
    assert test.area[groups[3].chosen].min() >= 0.3 and test.area[groups[0].chosen].max() < 0.1
    few = made(gated=0.0)
    few.area[:] = 0.05
    few.area[: 29 * EACH] = 0.9
    assert [group.is_judged for group in compare.size_groups(few)] == [True, False, False, False]
    person, other = compare.category_groups(test)
    assert person.chosen.sum() == IMAGES / 4 and other.chosen.sum() == 3 * IMAGES / 4


def test_the_macro_average_weighs_categories_alike():
    test = made(gated=0.0)
    values = test.systems["gated"].mean_mse
    expected = np.mean([values[test.category == name].mean() for name in ("person", "dog", "cup")])
    found = compare.macro(test, test.systems["gated"])
    assert found.value == pytest.approx(expected) and found.bounds[0] < expected < found.bounds[1]


def test_the_share_that_is_closed():
    test = made(seeds=2, dih_nm=20.0, dih_m=-40.0, gated=-20.0)
    found = compare.share_closed(test, test.systems["gated"].mean_mse)
    assert found.value == pytest.approx(0.5, abs=0.1) and found.bounds[0] < found.value < found.bounds[1]
    assert compare.share_closed(test, test.systems["dih_m"].mean_mse).value == pytest.approx(1)
    assert compare.share_closed(test, test.identity).value == pytest.approx(0)


def test_no_interval_where_there_may_be_no_way():
    test = made(seeds=2, dih_nm=20.0, dih_m=0.0, gated=-20.0)
    test.systems["dih_m"] = system("dih_m", test.identity + np.where(test.photos % 2, 30.0, -30.1))
    found = compare.share_closed(test, test.systems["gated"].mean_mse)
    assert np.isfinite(found.value) and found.interval is None


def test_what_is_not_finite_was_made_worse():
    test = made(gated=0.0)
    values = np.tile(test.identity, (3, 1))
    values[:, : IMAGES // 2] = np.nan
    assert compare.worse1(test, system("gated", values)).value == pytest.approx(1 / 2)


def test_the_share_made_worse_is_the_mean_over_seeds():
    test = made(gated=0.0)
    values = np.stack([test.identity + 2, test.identity, test.identity])
    assert compare.worse1(test, system("gated", values)).value == pytest.approx(1 / 3)
