import pytest

from nrh_dist.engine.summary import differences, mean, summarise


def row(dataset="A", run="r", mse=1.0, identity=2.0, area=0.05, **others):
    values = {"dataset": dataset, "model": "dih_nm", "run": run, "name": "n", "mse": mse, "psnr": 30.0, "fmse": 5.0}
    return {**values, "lpips": None, "area_fraction": area, "identity_mse": identity, **others}


def test_worse_is_counted_at_its_two_limits():
    (found,) = summarise([row(mse=value) for value in (1.0, 2.0, 2.01, 2.02, 3.0, 3.01)])
    assert (found["count"], found["worse"], found["worse1"]) == (6, 3 / 6, 1 / 6)


def test_bins_are_half_open_and_weigh_up_to_the_total():
    areas = [0.0, 0.0999, 0.1, 0.55, 1.0]
    (found,) = summarise([row(mse=float(number), area=area) for number, area in enumerate(areas)])
    assert [(one["bin"], one["count"]) for one in found["bins"]] == [
        ("0-10%", 2),
        ("10-20%", 1),
        ("50-60%", 1),
        ("90-100%", 1),
    ]
    assert sum(one["count"] * one["mse"] for one in found["bins"]) / 5 == pytest.approx(found["mse"])


def test_empty_cells_are_left_out_and_counted():
    (found,) = summarise([row(fmse=None), row(mse=None, psnr=None, fmse=None), row(psnr=100.0)])
    assert (found["not_finite"], found["fmse_empty"], found["psnr_capped"], found["lpips"]) == (1, 1, 1, None)
    assert found["mse"] == 1.0 and found["psnr"] == 65.0


def test_several_data_sets_also_together():
    found = summarise([row("A", mse=1.0), row("B", mse=3.0), row("B", mse=5.0)])
    assert [(one["dataset"], one["count"], one["mse"]) for one in found] == [
        ("A", 1, 1.0),
        ("B", 2, 4.0),
        ("all", 3, 3.0),
    ]
    assert mean([]) is None


def test_differences_are_paired_and_counted_at_their_limits():
    masked = [row("A", "s", mse=5.0), row("A", "s", mse=5.0), row("B", "s", mse=5.0), row("B", "s", mse=None)]
    predicted = [row("A", "p", mse=6.0), row("A", "p", mse=6.01), row("B", "p", mse=3.9), row("B", "p", mse=1.0)]
    found = differences([*masked, *predicted], [("p", "s")])
    assert [(one["dataset"], one["count"], one["better1"], one["worse1"]) for one in found] == [
        ("A", 2, 0, 1),
        ("B", 1, 1, 0),
        ("all", 3, 1, 1),
    ]
    assert [one["mse"] for one in found] == pytest.approx([1.005, -1.1, (1 + 1.01 - 1.1) / 3])
    assert found[0]["lpips"] is None
    assert differences(masked, []) == []
