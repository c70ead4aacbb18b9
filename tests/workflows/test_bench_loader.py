"""``nrh bench loader``: all sides hand over the same samples, and the figures are there."""

import numpy as np
import pytest
import torch
from packs import write_tree
from PIL import Image
from test_cli import mistake

from nrh_dist.data.feed import gather
from nrh_dist.data.layouts import Source, index
from nrh_dist.data.pack import write_pack
from nrh_dist.workflows import bench_loader, loaders

SMALL = bench_loader.Settings(size=64, rows=64, rounds=2, shards=2)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("loader") / "tree", side=64)


@pytest.fixture(scope="module")
def samples(tree):
    return index(Source(tree))


@pytest.fixture(scope="module")
def pack(samples, tmp_path_factory):
    return write_pack(samples, tmp_path_factory.mktemp("loader") / "pack", 64, 1, lambda _: None)


def test_decoding_at_the_native_size_gives_the_packs_pixels(samples, pack):
    for found, images in zip(
        loaders.decode_batch(samples[:5], 64), (pack.composites, pack.reals, pack.masks), strict=True
    ):
        assert np.array_equal(found.numpy(), images[:5])


def test_decoding_to_floats_normalises_as_issam_does(samples, pack):
    composite, real, mask = loaders.decode_float_batch(samples[:5], 64)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    for found, images in ((composite, pack.composites), (real, pack.reals)):
        expected = ((images[:5] / 255 - mean) / std).transpose(0, 3, 1, 2)
        assert found.shape == (5, 3, 64, 64) and np.allclose(found.numpy(), expected, atol=1e-5)
    assert np.allclose(mask.numpy()[:, 0], pack.masks[:5] / 255)


def test_decoding_resizes(samples):
    composite, real, mask = loaders.decode_batch(samples[:2], 32)
    assert composite.shape == real.shape == (2, 32, 32, 3) and mask.shape == (2, 32, 32)


def test_webdataset_gives_the_packs_pixels(pack, tmp_path):
    tars = loaders.write_tars(pack, tmp_path, 3)
    batches = [*loaders.webdataset_batches(tars, 64, 8)]
    assert [len(batch[0]) for batch in batches] == [8, 8, 8, 2]
    for position, images in enumerate((pack.composites, pack.reals, pack.masks)):
        assert np.array_equal(torch.cat([batch[position] for batch in batches]).numpy(), images)


def test_the_peers_cast_gives_what_the_feed_gives(pack):
    ours = gather(pack, np.arange(4), "cpu")
    found = loaders.normalised([torch.from_numpy(one[:4].copy()) for one in (pack.composites, pack.reals, pack.masks)])
    for one, other in zip(found, (ours.composite, ours.real, ours.mask), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_an_enlarged_pack_holds_the_rows_again_and_again(pack, tmp_path):
    large = bench_loader.enlarged(pack, 70, tmp_path)
    assert len(large) == 70 and len(set(large.names)) == 70
    for name in bench_loader.IMAGES:
        assert np.array_equal(getattr(large, name)[60], getattr(pack, name)[60 % len(pack)])
        assert len(getattr(large, name)) == 70


@pytest.mark.slow
def test_the_figures_of_a_data_folder(tree):
    figures = bench_loader.bench(tree, print, SMALL)
    assert [(one.name, one.target) for one in figures] == [
        ("feed against decoding", 200),
        ("feed against webdataset", 10),
        ("feed against decoding, uint8", None),
        ("feed against decoding, float", None),
        ("feed against webdataset, float", None),
    ]
    assert figures[0].ratio > 3  # files of 64x64 are quick to decode
    assert all(one.rounds == 2 and one.floor and one.floor > 0 for one in figures)


def test_costs_are_per_sample_of_each_side(samples, pack, tmp_path, monkeypatch):
    """In this process, which keeps its threads."""
    monkeypatch.setattr(bench_loader, "cpu_seconds", lambda function, number: [64.0, function(number)][0])
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    costs = bench_loader.costs_of_all(samples, pack.root, tmp_path, SMALL)
    assert {name: values[0] for name, values in costs.items()} == {
        "feed": 1,
        "decoding, float": 2,  # 32 a round
        "webdataset": 1,
        "floor": 1,
        "decoding": 2,
        "feed, float": 4,  # a quarter of the rows
        "webdataset, float": 2,  # one of two tars
    }
    assert all(len(values) == 2 for values in costs.values())
    assert {one.target for one in bench_loader._figures(costs, has_targets=False)} == {None}


def test_mistakes(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (70, 70)).save(tmp_path / "photos/a.png")
    assert "iHarmony4" in mistake(capsys, "bench", "loader", "--data", "photos")
    tree = write_tree(tmp_path / "tree")
    (tree / "Sample/masks/s0_0.png").unlink()
    assert "s0_0.png" in mistake(capsys, "bench", "loader", "--data", "tree")
    monkeypatch.setattr(loaders, "find_spec", lambda name: None)
    assert "webdataset, which is not installed: pip install" in mistake(capsys, "bench", "loader")
    assert not [*tmp_path.glob("bench*")]
