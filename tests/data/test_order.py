import numpy as np
import pytest
import torch

from nrh_dist.data.order import epoch_order, shard, step_rows, steps_per_epoch

CASES = [  # rows, batch size, world; ragged last batches, worlds larger than the (last) batch
    (10, 4, 1),
    (10, 4, 2),
    (10, 4, 3),
    (9, 4, 4),
    (7, 3, 5),
    (1, 8, 4),
    (64, 16, 8),
    (101, 32, 6),
]


@pytest.mark.parametrize(("count", "batch", "world"), CASES)
@pytest.mark.parametrize("epoch", [0, 3])
def test_each_row_once_an_epoch_and_ranks_together_are_one_worker(
    count: int, batch: int, world: int, epoch: int
) -> None:
    rows = np.arange(count) * 3 + 1
    order = epoch_order(rows, seed=5, epoch=epoch)
    seen = []
    for step in range(steps_per_epoch(count, batch)):
        parts = [step_rows(order, step, batch, rank, world) for rank in range(world)]
        lengths = [len(part) for part in parts]
        assert max(lengths) - min(lengths) <= 1
        assert np.array_equal(np.concatenate(parts), step_rows(order, step, batch, 0, 1))
        assert 0 < sum(lengths) <= batch
        seen += [row for part in parts for row in part]
    assert sorted(seen) == rows.tolist()


def test_order_depends_on_seed_and_epoch_alone() -> None:
    rows = np.arange(50)
    orders = {(seed, epoch): tuple(epoch_order(rows, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}
    assert len(set(orders.values())) == 4
    torch.manual_seed(1)
    np.random.seed(1)
    assert tuple(epoch_order(rows, 1, 1)) == orders[1, 1]
    assert np.array_equal(rows, np.arange(50)), "the rows themselves stay as they are"


def test_steps_of_an_epoch() -> None:
    assert [steps_per_epoch(n, 4) for n in (0, 1, 4, 5, 8)] == [0, 1, 1, 2, 2]


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_shards_divide_the_rows(world: int) -> None:
    rows = np.arange(5) * 2
    parts = [shard(rows, rank, world) for rank in range(world)]
    assert sorted(np.concatenate(parts)) == rows.tolist()
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
