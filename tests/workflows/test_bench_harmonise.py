"""``nrh bench harmonise``: its figures, on a small photo."""

import pytest

from nrh_dist.workflows import bench_harmonise
from nrh_dist.workflows.bench_harmonise import Settings


@pytest.mark.slow
def test_the_figures():
    found = bench_harmonise.bench(print, Settings(width=300, height=200, size=64, rounds=1))
    assert [one.name for one in found] == ["harmonising with gated", "harmonising with ptc_dih", "start"]
    assert all(one.ratio > 0 and one.target is None for one in found)
    assert "300 x 200 px" in found[0].unit and found[2].ratio < 2
