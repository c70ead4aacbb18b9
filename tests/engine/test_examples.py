import numpy as np
import pytest

from nrh_dist.engine import examples
from nrh_dist.engine.summary import Scores
from nrh_dist.report import gallery

nan = float("nan")
N = 40


def scored(run="r", model="gated", **others):
    """Changes of MSE from -100 to +56, in steps of 4; an image in four is at fault in its own way."""
    change = np.arange(N) * 4.0 - 100
    values = {
        "identity_mse": np.full(N, 200.0),
        "mse": 200 + change,
        "correction": np.where(np.arange(N) % 4, 0.9, 0.2),
        "change_outside": np.full(N, 0.1),
        "detected": np.full(N, 0.8),
    }
    return Scores(run, model, {**values, **{name: np.array(column, float) for name, column in others.items()}})


NAMES = [f"n{place:02d}" for place in range(N)]


def chosen(run, photos=NAMES, names=NAMES):
    found = {}
    for one in examples.choose(run, names, photos):
        found.setdefault(one.group, []).append(one.place)
    return found


def test_the_rules():
    found = chosen(scored())
    assert found["best"] == [0, 1] and found["worst"] == [39, 38]
    assert found["median"] == [19, 20], "both are 2 from the median; the name decides"
    assert found["under-corrected"] == [36, 32], "the largest errors whose correction is below a half"
    assert found["other"] == [37, 35]
    assert set(found) == {"best", "median", "worst", "random", "under-corrected", "other"} <= set(examples.RULES)


def test_random_ones_are_the_same_every_time_and_do_not_depend_on_the_order():
    assert chosen(scored())["random"] == chosen(scored())["random"]
    run, back = scored(), np.arange(N)[::-1]
    turned = Scores("r", "gated", {name: column[back] for name, column in run.values.items()})
    again = examples.choose(turned, [NAMES[place] for place in back], [NAMES[place] for place in back])
    assert [(NAMES[back[one.place]], one.group) for one in again] == [
        (NAMES[one.place], one.group) for one in examples.choose(run, NAMES, NAMES)
    ]


def test_no_two_composites_of_one_photo():
    found = chosen(scored(), [f"photo{place // 10}" for place in range(N)])
    places = [place for group in found.values() for place in group]
    assert len({place // 10 for place in places}) == len(places) == 4


def test_several_composites_of_the_photo_that_has_the_most():
    """As in the paper's Figure 9: whatever was made of them, and whichever other group they are in."""
    names = [f"p{place // 2}_m{place % 2}_1" for place in range(N)]  # two of each photo
    photos = [name.split("_")[0] for name in names]
    assert chosen(scored(), photos, names)[examples.SEVERAL] == [0, 1], "of equals, the first by name"
    names[30:34] = [f"p7_m0_{number}" for number in (9, 4, 3, 2)]
    photos[30:34] = ["p7"] * 4
    found = chosen(scored(), photos, names)
    assert found[examples.SEVERAL] == [14, 33, 32], "p7 has six: the first three by name"
    identity = np.full(N, 200.0)
    identity[14:16] = identity[31:34] = 0
    assert chosen(scored(identity_mse=identity), photos, names)[examples.SEVERAL] == [0, 1], "no composites of p7"
    assert examples.SEVERAL not in chosen(scored(), photos, NAMES)
    scenes = ["scene"] * N
    names = [f"scene-{place}_m_1" for place in range(N)]
    assert examples.SEVERAL not in chosen(scored(), scenes, names), "one scene, but not one photo"


def test_the_page_knows_every_group():
    assert set(gallery.GROUPS) == set(examples.RULES)


def test_an_image_without_a_value_is_drawn_at_random_only():
    mse = np.full(N, nan)
    found = chosen(scored(mse=mse))
    assert list(found) == ["random"]
    mse[5] = 100.0
    assert chosen(scored(mse=mse))["best"] == [5]


def test_the_best_run_without_a_mask_judges():
    runs = [
        scored("identity", "identity"),
        scored("masked", "dih_m", mse=np.full(N, 1.0)),
        scored("bad", "dih_nm", mse=np.full(N, 300.0)),
        scored("good", "ptc_dih", mse=np.full(N, 150.0)),
        scored("lost", "gated", mse=np.full(N, nan)),
    ]
    assert examples.judged(runs).run == "good"
    assert examples.judged(runs[:2]).run == "masked"
    assert examples.judged(runs[:1]) is None
    assert "good" in examples.rule(runs[3]) and "see no mask" in examples.rule(runs[3])
    assert "see no mask" not in examples.rule(runs[1]) and "6 evenly spaced" in examples.rule(None)


@pytest.mark.parametrize("count", [1, 3, 6])
def test_spread_covers_the_ranks(count):
    values = np.arange(10.0)[::-1]
    places = examples.spread(values, NAMES, count)
    assert len(places) == count and [values[place] for place in places] == sorted(values[place] for place in places)
    assert examples.spread(values[:2], NAMES, 6) == [1, 0]
