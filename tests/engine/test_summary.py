import numpy as np
import pytest

from nrh_dist.engine.summary import Images, Scores, differences, mean, median, summarise

nan = float("nan")


def images(areas, datasets=None):
    return Images(np.array(datasets or ["A"] * len(areas)), np.array(areas))


def scores(mse, run="r", identity=2.0, **others):
    count = len(mse)
    values = {"mse": mse, "psnr": [30.0] * count, "fmse": [5.0] * count, "lpips": [nan] * count}
    values |= {"identity_mse": [identity] * count, **others}
    return Scores(run, "dih_nm", {name: np.array(column, float) for name, column in values.items()})


def test_worse_is_counted_at_its_two_limits():
    (found,) = summarise(images([0.05] * 6), [scores([1.0, 2.0, 2.01, 2.02, 3.0, 3.01])])
    assert (found["count"], found["worse"], found["worse1"]) == (6, 3 / 6, 1 / 6)


def test_bins_are_half_open_and_weigh_up_to_the_total():
    areas = [0.0, 0.0499, 0.05, 6553 / 65536, 0.1, 0.1499, 0.15, 0.55, 1.0]
    (found,) = summarise(images(areas), [scores([float(number) for number in range(9)])])
    assert [(one["bin"], one["count"]) for one in found["bins"]] == [
        ("0-10%", 4),
        ("10-20%", 3),
        ("50-60%", 1),
        ("90-100%", 1),
    ]
    assert [(one["bin"], one["count"]) for one in found["field_bins"]] == [("0-5%", 2), ("5-15%", 4), ("15-100%", 3)]
    for bins in (found["bins"], found["field_bins"]):
        assert sum(one["count"] * one["mse"] for one in bins) / 9 == pytest.approx(found["mse"])


def test_empty_cells_are_left_out_and_counted():
    one = scores([1.0, nan, 1.0], psnr=[30.0, nan, 100.0], fmse=[nan, nan, 5.0])
    (found,) = summarise(images([0.05] * 3), [one])
    assert (found["not_finite"], found["fmse_empty"], found["psnr_capped"], found["lpips"]) == (1, 1, 1, None)
    assert found["mse"] == 1.0 and found["psnr"] == 65.0 and found["median_psnr"] == 65.0


def test_several_data_sets_also_together():
    found = summarise(images([0.1] * 3, ["A", "B", "B"]), [scores([1.0, 3.0, 5.0])])
    assert [(one["dataset"], one["count"], one["mse"]) for one in found] == [
        ("A", 1, 1.0),
        ("B", 2, 4.0),
        ("all", 3, 3.0),
    ]
    assert mean([]) is None and median(np.array([nan])) is None


def test_differences_are_paired_and_counted_at_their_limits():
    both = [scores([6.0, 6.01, 3.9, 1.0], "p"), scores([5.0, 5.0, 5.0, nan], "s")]
    where = images([0.1] * 4, ["A", "A", "B", "B"])
    found = differences(where, both, [("p", "s")])
    assert [(one["dataset"], one["count"], one["better1"], one["worse1"]) for one in found] == [
        ("A", 2, 0, 1),
        ("B", 1, 1, 0),
        ("all", 3, 1, 1),
    ]
    assert [one["mse"] for one in found] == pytest.approx([1.005, -1.1, (1 + 1.01 - 1.1) / 3])
    assert found[0]["lpips"] is None
    assert differences(where, both, []) == []
