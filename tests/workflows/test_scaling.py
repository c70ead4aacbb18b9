import math
from pathlib import Path

import pytest
import torch

from nrh_dist.workflows import scaling
from nrh_dist.workflows.floors import Operation
from nrh_dist.workflows.scaling import MACHINES, Machine, Work, gather_seconds, step_time, sum_seconds

NOTE = Path(__file__).parents[2] / "reports" / "scaling.md"
ALONE = Machine("one GPU each", 1, 1e12, 1e12, math.inf, 0.0, 1e9, 1e-5)


def test_one_gpu_talks_to_nobody():
    for machine in MACHINES:
        assert sum_seconds(1e9, 1, machine) == gather_seconds(1, machine, is_ring=True) == 0


def test_a_ring_sends_every_byte_twice_in_the_limit_and_pays_each_hop():
    assert sum_seconds(1e9, 2, ALONE) == pytest.approx(1 + 2e-5)
    assert sum_seconds(1e9, 10_000, ALONE) == pytest.approx(2 * (1 - 1e-4) + 2 * 9999e-5)


def test_a_tree_takes_the_logarithm_of_a_rings_hops():
    assert gather_seconds(64, ALONE, is_ring=False) == pytest.approx(6e-5)
    assert gather_seconds(64, ALONE, is_ring=True) == pytest.approx(63e-5)


def test_inside_a_machine_its_own_links_are_used():
    several = ALONE._replace(gpus=8, inside=1e12, inside_hop=0.0)
    assert sum_seconds(1e9, 8, several) == pytest.approx(2 * 7 / 8 * 1e-3)
    assert sum_seconds(1e9, 16, several) == pytest.approx(2 * 7 / 8 * 1e-3 + 1 + 2e-5)


def test_a_step_with_nothing_to_synchronise_scales_and_one_with_many_norms_does_not():
    operations = (Operation(10**12, 0, torch.bfloat16),)
    assert step_time(Work(operations, 0, 0), 64, ALONE).total == pytest.approx(1 / scaling.EFFICIENCY, rel=1e-3)
    norms = step_time(Work(operations, 0, 10), 64, ALONE)
    assert norms.statistics == pytest.approx(2 * 10 * 6e-5)
    hidden = step_time(Work(operations, 10**8, 0), 64, ALONE)
    assert hidden.gradients == pytest.approx(sum_seconds(25e6, 64, ALONE))  # all but the last bucket


def test_the_work_of_a_step_is_that_of_the_model():
    one, many = scaling.work_of("dih_m", 1), scaling.work_of("dih_m", 4)
    assert sum(each.flops for each in many.operations) == 4 * sum(each.flops for each in one.operations)
    assert 6e9 < sum(each.flops for each in one.operations) < 8e9
    assert one.norms > 5 and one.parameters == many.parameters


def test_the_note_holds_the_tables_as_the_model_has_them():
    assert scaling.tables() in NOTE.read_text(), "python -m nrh_dist.workflows.scaling prints them"
