import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from trees import make_tree, many

from nrh_dist.data import feed as feeding
from nrh_dist.data.feed import AHEAD, Batch, Features, Feed, gather
from nrh_dist.data.layouts import Source, index
from nrh_dist.data.pack import Pack, write_pack


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


PARTS = [np.array(part, np.int64) for part in ([4, 0], [5], [], [3, 1, 4], [0, 0])]


def some_features(count: int, reals: bool) -> Features:
    """Of the rows 5, 4, 3, 1 and 0, in this order; none of row 2."""
    values = np.random.default_rng(1).random((5, 3, 2, 2), np.float32)
    positions = np.full(count, -1, np.int64)
    positions[[5, 4, 3, 1, 0]] = np.arange(5)
    return Features(values, values + 1 if reals else None, positions)


def assert_equal(one: Batch, other: Batch) -> None:
    assert np.array_equal(one.rows, other.rows)
    for name, a, b in zip(Batch._fields[1:], one[1:], other[1:], strict=True):
        assert (a is None) == (b is None), name
        if a is not None:
            assert a.dtype == b.dtype and torch.equal(a.cpu(), b.cpu()), name


@pytest.mark.parametrize("reals", [None, False, True], ids=["images", "and features", "and features of reals"])
def test_resident_and_streamed_batches_are_the_same_bits(pack: Pack, reals: bool | None) -> None:
    rows, features = np.array([0, 1, 3, 4, 5]), None if reals is None else some_features(len(pack), reals)
    stream, resident = (Feed(pack, rows, "cpu", mode, features) for mode in ("stream", "resident"))
    assert resident.is_resident and not stream.is_resident
    batches = [list(feed.batches(iter(PARTS))) for feed in (stream, resident)]
    assert len(batches[0]) == len(PARTS)
    for one, other, part in zip(*batches, PARTS, strict=True):
        assert_equal(one, other)
        assert_equal(one, stream.gather(part))
        assert_equal(gather(pack, part, "cpu")._replace(features=one.features, real_features=one.real_features), one)
        assert (one.features is None, one.real_features is None) == (reals is None, not reals)
        if features is not None and one.features is not None:
            assert np.array_equal(one.features.numpy(), features.composites[features.positions[part]])


def test_a_batch_is_the_readers_own(pack: Pack) -> None:
    """What a training does to one batch is not in the next one, resident or not."""
    for mode in ("stream", "resident"):
        feed = Feed(pack, np.arange(6), "cpu", mode)
        first, second = feed.batches([np.array([1, 2])] * 2)
        for tensor in (first.composite, first.real, first.mask):
            tensor.zero_()
        assert_equal(second, gather(pack, np.array([1, 2]), "cpu"))
        assert_equal(feed.gather(np.array([1, 2])), second)


def test_batches_are_gathered_ahead_but_not_all_at_once(pack: Pack) -> None:
    asked = []

    def parts() -> Iterator[np.ndarray]:
        for number in range(20):
            asked.append(number)
            yield np.array([number % 6])

    batches = Feed(pack, np.arange(6), "cpu").batches(parts())
    for number, batch in enumerate(batches):
        assert batch.rows.tolist() == [number % 6]
        assert len(asked) == min(20, number + 1 + AHEAD)


def test_a_fault_while_gathering_reaches_the_reader(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    real = feeding._take

    def take(source: np.ndarray, rows: np.ndarray, device: torch.device) -> torch.Tensor:
        if 3 in rows:
            raise OSError("the disk is gone")
        return real(source, rows, device)

    monkeypatch.setattr(feeding, "_take", take)
    batches = Feed(pack, np.arange(6), "cpu").batches(np.array([row]) for row in range(6))
    seen = []
    with pytest.raises(OSError, match="the disk is gone"):
        seen.extend(batch.rows[0] for batch in batches)
    assert seen == [0, 1, 2]
    assert not any(thread.name.startswith("feed") for thread in threading.enumerate())


def test_a_reader_that_leaves_takes_the_thread_with_it(pack: Pack) -> None:
    batches = Feed(pack, np.arange(6), "cpu").batches(np.array([row % 6]) for row in range(1000))
    next(batches)
    assert any(thread.name.startswith("feed") for thread in threading.enumerate())
    batches.close()  # type: ignore[attr-defined]
    assert not any(thread.name.startswith("feed") for thread in threading.enumerate())


def test_auto_streams_on_a_cpu(pack: Pack) -> None:
    feed = Feed(pack, np.arange(6), "cpu", "auto")
    assert not feed.fits() and not feed.is_resident


def test_the_size_of_the_rows_is_that_of_all_that_moves(pack: Pack) -> None:
    images = 4 * 16 * 16 * (3 + 3 + 1)
    assert Feed(pack, np.arange(4), "cpu").nbytes == images
    assert Feed(pack, np.arange(4), "cpu", "stream", some_features(len(pack), True)).nbytes == images + 4 * 2 * 12 * 4


def test_a_row_outside_the_feed_is_a_bug(pack: Pack) -> None:
    feed = Feed(pack, np.array([0, 1, 3]), "cpu", "resident")
    with pytest.raises((AssertionError, IndexError)):
        feed.gather(np.array([2]))


@pytest.mark.gpu
@pytest.mark.parametrize("fits", [True, False])
def test_auto_moves_what_fits_after_a_step(pack: Pack, monkeypatch: pytest.MonkeyPatch, fits: bool) -> None:
    feed = Feed(pack, np.arange(6), "cuda", "auto", some_features(len(pack), True))
    here = Feed(pack, np.arange(6), "cpu", "stream", some_features(len(pack), True))
    assert not feed.is_resident, "the step's own memory is not known yet"
    total = 1 << 30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (total // 10 + feed.nbytes - (0 if fits else 10), total))
    assert feed.fits() is fits
    if fits:
        feed.make_resident()
        assert feed.is_resident and not feed.fits()
    for one, other in zip(feed.batches(PARTS), here.batches(PARTS), strict=True):
        assert one.composite.is_cuda and one.composite.is_contiguous(memory_format=torch.channels_last)
        for a, b in zip(one[1:], other[1:], strict=True):
            assert torch.allclose(a.cpu(), b, atol=1e-6)


@pytest.mark.gpu
def test_batches_on_the_gpu_are_those_of_the_cpu(pack: Pack) -> None:
    there, here = gather(pack, np.arange(6), "cuda"), gather(pack, np.arange(6), "cpu")
    assert there.composite.is_contiguous(memory_format=torch.channels_last)
    for one, other in zip(there[1:], here[1:], strict=True):
        assert torch.allclose(one.cpu(), other, atol=1e-6)
