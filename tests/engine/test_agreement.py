"""Agreement with people: laws that hold by definition, and another implementation of the numbers."""

import numpy as np
import pytest

from nrh_dist.engine.agreement import BETTER, NOT_SHOWN, UNKNOWN, Constant, compare, constant_of, verdict

CONSTANT = Constant(0.25, 0.2, "made up")


@pytest.fixture
def human():
    return np.random.default_rng(0).uniform(0.05, 0.6, (40, 2))


def of(predicted, human, never=None, photos=None, constant=CONSTANT):
    never = np.zeros(human.shape, bool) if never is None else never
    return compare(predicted, human, never, photos or [str(number) for number in range(len(human))], constant)


def test_the_constant_is_the_median_of_what_was_measured():
    stops = np.array([[-0.2, 0.1], [-0.4, 0.3], [np.nan, np.nan], [-0.3, 0.5]])
    assert constant_of(stops) == (pytest.approx(0.3), pytest.approx(0.3), "median of 3 training photos")
    assert constant_of(np.full((2, 2), np.nan)) == (0.248, 0.227, "published means")
    assert constant_of(np.zeros((0, 2))).source == "published means"


def test_a_perfect_detector_has_no_error_and_beats_the_constant(human):
    found = of(human, human)
    for entry, columns in zip(found, ([0], [1], [0, 1]), strict=True):
        assert entry["error"] == entry["error_low"] == entry["error_high"] == 0
        assert entry["rank_correlation"] == pytest.approx(1)
        guess = np.array([0.25, 0.2])[columns]
        assert entry["constant_error"] == pytest.approx(np.abs(human[:, columns] - guess).mean())
        assert entry["difference"] == pytest.approx(-entry["constant_error"])
        assert entry["constant_low"] < entry["constant_error"] < entry["constant_high"]
    assert [entry["sign"] for entry in found] == ["negative", "positive", "both"]
    assert verdict(found) == BETTER


def test_a_detector_that_answers_the_constant_is_no_better(human):
    found = of(np.tile((0.25, 0.2), (40, 1)), human)
    for entry in found:
        assert entry["difference"] == entry["difference_low"] == entry["difference_high"] == 0
        assert entry["rank_correlation"] is None, "nothing varies"
    assert verdict(found) == NOT_SHOWN


def test_rank_correlation_agrees_with_ranks_by_hand(human):
    predicted = np.random.default_rng(1).uniform(0, 1, human.shape).round(1)  # with ties

    def ranks(values):
        return np.array([(values < one).sum() + ((values == one).sum() - 1) / 2 for one in values])

    expected = [np.corrcoef(ranks(predicted[:, sign]), ranks(human[:, sign]))[0, 1] for sign in (0, 1)]
    found = of(predicted, human)
    assert [entry["rank_correlation"] for entry in found] == pytest.approx([*expected, np.mean(expected)])
    assert found[0]["rank_low"] < expected[0] < found[0]["rank_high"]


def test_what_was_never_crossed_is_counted(human):
    never = np.zeros(human.shape, bool)
    never[:3, 0] = never[:5, 1] = True
    assert [entry["never_crossed"] for entry in of(human, human, never)] == [3, 5, 8]


def test_photos_are_drawn_whole(human):
    """Forty copies of ten photos know no more than the ten do."""
    ten, predicted = human[:10], np.random.default_rng(2).uniform(0, 1, (10, 2))
    alone = of(predicted, ten)[2]
    names = [str(number % 10) for number in range(40)]
    copies = of(np.tile(predicted, (4, 1)), np.tile(ten, (4, 1)), photos=names)[2]
    for key in ("error", "error_low", "error_high", "difference_low", "rank_high"):
        assert copies[key] == pytest.approx(alone[key])


def test_few_or_no_photos_have_no_interval(human):
    few = of(human[:9], human[:9])
    assert few[2]["error"] == 0 and few[2]["error_low"] is None
    assert verdict(few) == NOT_SHOWN
    none = of(human[:0], human[:0])
    assert none[2]["error"] is None and none[2]["rank_correlation"] is None
    assert verdict(none) == UNKNOWN
