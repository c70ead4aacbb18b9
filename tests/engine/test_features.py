import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from packs import write_small_pack
from ranks import run_ranks

from nrh_dist import config
from nrh_dist.data.feed import Feed, gather
from nrh_dist.data.pack import open_pack
from nrh_dist.engine import features
from nrh_dist.engine.assemble import new_model
from nrh_dist.engine.dist import Place
from nrh_dist.engine.tasks import task_of
from nrh_dist.errors import UserError

COMMON = ("preset=tiny", "model.width=0.1", "model.name=ptc_dih")


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_small_pack(tmp_path_factory.mktemp("features"), train=40, test=4)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NRH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(features, "CHUNK", 8)


def configured(*words):
    return config.load(None, [*COMMON, *words])


def made(one, pack, model=None, said=None, beats=None):
    model = model or new_model(one, lambda _: None)
    beats = [] if beats is None else beats
    said = [] if said is None else said
    return features.cached(model, one, pack, Place(), said.append, lambda: beats.append(1))


def folders():
    return sorted(path.name for path in Path(os.environ["NRH_CACHE"]).iterdir())


def test_the_features_are_the_encoders_own_output(pack):
    """Of the photos in a batch of another size: to float32's rounding. Rows of the test list have none."""
    one = configured("data.clean_fraction=0.5")
    model = new_model(one, lambda _: None)
    beats = []
    found = made(one, pack, model, beats=beats)
    rows = pack.rows("train")
    assert found.composites.shape == found.reals.shape == (40, 15, 7, 7)
    assert (found.positions[rows] == np.arange(40)).all()
    assert (found.positions[pack.rows("test")] == -1).all()
    for values, source in ((found.composites, "composite"), (found.reals, "real")):
        own = model.detector.encoder(getattr(gather(pack, rows[3:8], "cpu"), source))
        torch.testing.assert_close(torch.from_numpy(np.array(values[3:8])), own, rtol=1e-5, atol=1e-6)
    assert len(beats) >= 2 * 5
    assert made(configured(), pack, model).reals is None


def test_precision_and_mode_do_not_reach_the_features(pack, monkeypatch):
    one = configured()
    model = new_model(one, lambda _: None).train()
    expected = np.array(made(one, pack, model).composites)
    monkeypatch.setenv("NRH_CACHE", os.environ["NRH_CACHE"] + "2")
    assert (made(configured("train.precision=bfloat16"), pack, model.eval()).composites == expected).all()


def test_what_shapes_them_has_a_folder_of_its_own(pack, tmp_path):
    made(configured(), pack)
    made(configured("optim.lr=1"), pack)  # nothing to do with the encoder
    assert len(folders()) == 1
    made(configured("seed=1"), pack)  # other weights
    made(configured("model.batchnorm_eps=1e-3"), pack)
    made(configured("data.clean_fraction=0.1"), pack)  # the reals, beside the same composites
    made(configured(), write_small_pack(tmp_path, train=20))
    assert len(folders()) == 5
    assert all(name.startswith("features-") and "." not in name for name in folders())
    content = {path.name for path in (Path(os.environ["NRH_CACHE"]) / folders()[0]).iterdir()}
    assert content == {"values.f32", "manifest.json"}


@pytest.mark.parametrize(
    ("words", "exact"),
    [
        (("model.name=ptc_dih",), True),
        (("model.name=ptc_att_dih", "model.fusion_width=8"), True),
        (("model.name=gated", "model.freeze=all"), True),
        (("model.name=ptc_dih", "model.freeze=none"), False),
        (("model.name=ptc_dih", "model.freeze=encoder_until:13"), False),
        (("model.name=dih_m",), False),
        (("model.name=two_stage",), False),
        (("model.name=ptc", "stage=thresholds", "model.freeze=encoder"), False),
    ],
)
def test_exact_only_where_the_whole_encoder_is_frozen(words, exact):
    one = config.load(None, ["preset=tiny", "model.width=0.1", *words])
    assert features.is_exact(one, new_model(one, lambda _: None)) == exact


def counted(place, root, cache, together):
    """The values, and how many chunks this process computed itself."""
    os.environ["NRH_CACHE"] = str(cache)
    features.CHUNK = 2
    chunks = []
    gathered = features.gather
    features.gather = lambda *given: chunks.append(1) or gathered(*given)
    one = configured()
    model, said = new_model(one, lambda _: None), []
    alone = Place()
    values = features.cached(model, one, open_pack(root), place if together else alone, said.append, lambda: None)
    return np.array(values.composites), len(chunks), said


@pytest.mark.parametrize("together", [True, False], ids=["ranks of one run", "two runs"])
def test_two_processes_make_them_once_and_alike(pack, tmp_path, together):
    torch.set_num_threads(1)
    (alone, _, _) = counted(Place(), pack.root, tmp_path / "alone", True)
    both = run_ranks(counted, 2, tmp_path / "ranks", pack.root, tmp_path / "both", together)
    assert sum(count for _, count, _ in both) == 20
    for values, _, _ in both:
        assert values.tobytes() == alone.tobytes()
    files = [
        (tmp_path / name / folder / "values.f32").read_bytes()
        for name in ("alone", "both")
        for folder in os.listdir(tmp_path / name)
    ]
    assert files[0] == files[1] and len(files) == 2


KILLED = """
import os, signal, sys
sys.path[:0] = {paths!r}
import test_features as t
t.features.CHUNK = 8
gather, calls = t.features.gather, []
def killed(*given):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return gather(*given)
t.features.gather = killed
t.made(t.configured(), t.open_pack({root!r}))
"""


def test_a_killed_attempt_is_continued(pack, monkeypatch):
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    code = KILLED.format(paths=paths, root=str(pack.root))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (partial,) = folders()
    assert partial.endswith(".partial")
    chunks = []
    gathered = features.gather
    monkeypatch.setattr(features, "gather", lambda *given: chunks.append(1) or gathered(*given))
    model = new_model(configured(), lambda _: None)
    found = made(configured(), pack, model)
    assert folders() == [partial.removesuffix(".partial")]
    assert len(chunks) == 3  # of 5
    own = model.detector.encoder(gather(pack, pack.rows("train"), "cpu").composite)
    torch.testing.assert_close(torch.from_numpy(np.array(found.composites)), own, rtol=1e-5, atol=1e-6)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: flip(folder / "values.f32"), "does not fit"),
        (lambda folder: os.truncate(folder / "values.f32", 100), "another size"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "Expecting"),
    ],
)
def test_damage_is_found_said_and_mended(pack, damage, reason):
    expected = np.array(made(configured(), pack).composites)
    (name,) = folders()
    damage(Path(os.environ["NRH_CACHE"]) / name)
    said = []
    assert (made(configured(), pack, said=said).composites == expected).all()
    assert "damaged" in said[0] and reason in said[0]
    assert folders() == [name]
    said.clear()
    made(configured(), pack, said=said)
    assert said == []


def test_a_disk_without_room_is_found_before(pack, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(features.shutil, "disk_usage", lambda _: usage(1, 1, 10))
    with pytest.raises(UserError, match=r"of 40 photos need .* GB, but .* speed\.features=false"):
        made(configured(), pack)


def test_a_cache_that_cannot_be_written_is_a_line(pack, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NRH_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot keep the detector's features .* speed\.features=false"):
        made(configured(), pack)


@pytest.mark.parametrize("name", ["ptc_dih", "ptc_att_dih", "gated"])
def test_a_step_with_them_equals_one_without(pack, name):
    """Losses to 1e-5, gradients to 1e-3 of their norm: the encoder ran in batches of another size."""
    words = (f"model.name={name}", "data.clean_fraction=0.5")
    one = configured(*words, *(("model.fusion_width=8",) if name == "ptc_att_dih" else ()))
    model = new_model(one, lambda _: None)
    rows, results = pack.rows("train")[[5, 0, 17]], []
    for kept in (None, made(one, pack, model)):
        batch = Feed(pack, pack.rows("train"), "cpu", "stream", kept).gather(rows)
        assert (batch.features is None) == (kept is None)
        model.train().zero_grad()
        losses = task_of(one, pack).losses(model, batch, 0)
        losses.sum().backward()
        gradients = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
        results.append((losses.detach(), torch.cat(gradients)))
    (plain, gradient), (tuned, own_gradient) = results
    torch.testing.assert_close(tuned, plain, rtol=1e-5, atol=0)
    assert (own_gradient - gradient).norm() < 1e-3 * gradient.norm()


def wait_for_the_other(place, folder):
    """Rank 1 comes late; the beats of rank 0 meanwhile."""
    beats = []
    if place.rank == 1:
        time.sleep(1.5)
    features._meet(place, lambda: beats.append(1))
    return len(beats)


def test_ranks_wait_for_each_other_and_still_beat(tmp_path):
    early, _ = run_ranks(wait_for_the_other, 2, tmp_path, tmp_path)
    assert early >= 3
