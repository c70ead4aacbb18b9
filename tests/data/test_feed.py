import numpy as np
import pytest
import torch
from trees import make_tree, many

from nrh_dist.data.feed import epoch_order, gather, shard, step_rows, steps_per_epoch
from nrh_dist.data.layouts import Source, index
from nrh_dist.data.pack import Pack, write_pack

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


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    folder = tmp_path_factory.mktemp("feed")
    samples = index(Source(make_tree(folder / "root", {"HCOCO": {"train": many(6)}})))
    return write_pack(samples, folder / "pack", 16, 1, lambda line: None)


def test_batches_hold_the_packed_values(pack: Pack) -> None:
    rows = np.array([4, 0, 4])
    batch = gather(pack, rows, "cpu")
    assert batch.composite.shape == batch.real.shape == (3, 3, 16, 16)
    assert batch.mask.shape == (3, 1, 16, 16)
    for tensor, packed in ((batch.composite, pack.composites), (batch.real, pack.reals)):
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous(memory_format=torch.channels_last)
        back = ((tensor.double() + 1) * 127.5).permute(0, 2, 3, 1).numpy()
        assert np.abs(back - packed[rows]).max() < 1e-4
    assert np.abs(batch.mask[:, 0].numpy() * 255 - pack.masks[rows]).max() < 1e-4
    assert batch.mask.max() == 1 and batch.mask.min() == 0
    assert np.array_equal(batch.rows, rows)


def test_empty_rows_give_an_empty_batch(pack: Pack) -> None:
    batch = gather(pack, np.array([], np.int64), "cpu")
    assert batch.composite.shape == (0, 3, 16, 16) and batch.mask.shape == (0, 1, 16, 16)


def test_a_row_outside_the_pack_is_a_bug(pack: Pack) -> None:
    with pytest.raises(AssertionError, match="rows of the pack"):
        gather(pack, np.array([0, 6]), "cpu")


@pytest.mark.gpu
def test_batches_on_the_gpu_are_those_of_the_cpu(pack: Pack) -> None:
    there, here = gather(pack, np.arange(6), "cuda"), gather(pack, np.arange(6), "cpu")
    assert there.composite.is_contiguous(memory_format=torch.channels_last)
    for one, other in zip(there[1:], here[1:], strict=True):
        assert torch.allclose(one.cpu(), other, atol=1e-6)
