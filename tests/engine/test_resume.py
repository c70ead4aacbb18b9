"""A run that was killed and started again gives what an uninterrupted one gives, to the last bit.

Three kills: in mid-epoch, right after the checkpoint of an epoch, and with half of that checkpoint written. The whole
grid of models, stages, workers, kills and cached features: pytest tests/engine/test_resume.py -m slow (minutes).
After a kill the newest checkpoint may be damaged as well, in any of its files.
"""

import json
import shutil
from itertools import product
from pathlib import Path

import pytest
import torch
from packs import write_small_pack
from recorded import STEPS, KillAfterEpoch, KillAtStep, KillWhileSaving, ends, starts, steps, train

from nrh_dist.engine import checkpoint

FUSED = "model.fusion_width=8"
GATED = ("model.name=gated", FUSED, "loss.gate=1", "loss.harm=1", "data.clean_fraction=0.3")
MODELS = {
    "dih_m": ("model.name=dih_m",),
    "dih_nm": ("model.name=dih_nm",),
    "ptc_dih": ("model.name=ptc_dih",),
    "ptc_att_dih": ("model.name=ptc_att_dih", FUSED),
    "gated": GATED,
    "equivariance": ("model.name=ptc", "stage=equivariance"),
    "thresholds": ("model.name=ptc", "stage=thresholds"),
}
CACHING = ("ptc_dih", "ptc_att_dih", "gated")  # models with a frozen encoder, whose output may be kept
OPTIONS = ("model.dropout=true", "train.checkpoint_steps=3")

# Epochs are of 4 steps, checkpoints after steps 3, 4, 6, 8, 9 and 12: each kill, and the step that it goes on from.
KILLS = {
    "in mid-epoch": (lambda world: KillAtStep(7, rank=world - 1), 6),
    "after an epoch": (lambda world: KillAfterEpoch(2), 8),
    "while saving": (lambda world: KillWhileSaving(8), 6),
}
CASES = [(name, False, world, kill) for name, world, kill in product(MODELS, (1, 2), KILLS)]
CASES += [(name, True, world, kill) for name, world, kill in product(CACHING, (1, 2), KILLS)]
FAST = [
    ("dih_nm", False, 1, "in mid-epoch"),
    ("dih_nm", False, 1, "after an epoch"),
    ("dih_m", False, 2, "while saving"),
    ("gated", True, 1, "while saving"),
    ("thresholds", False, 2, "in mid-epoch"),
]


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_small_pack(tmp_path_factory.mktemp("resume")).root


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, pack):
    """The folder of the uninterrupted run of a case, trained once."""
    root, made = tmp_path_factory.mktemp("whole"), {}

    def folder_of(name, is_cached, world):
        key = f"{name}-{is_cached}-{world}"
        if key not in made:
            assert train(root / key, pack, words_of(name, is_cached), world) == [0] * world
            made[key] = root / key
        return made[key]

    return folder_of


def words_of(name, is_cached):
    return (*MODELS[name], *OPTIONS, f"speed.features={str(is_cached).lower()}")


def check(folder, pack, whole, name, is_cached, world, kill):
    fault, resumed_from = KILLS[kill]
    assert min(train(folder, pack, words_of(name, is_cached), world, fault(world))) == -9
    check_resumed(folder, pack, whole, name, is_cached, world, resumed_from)


def check_resumed(folder, pack, whole, name, is_cached, world, resumed_from):
    assert train(folder, pack, words_of(name, is_cached), world) == [0] * world
    for rank in range(world):
        assert starts(folder, rank)[1] == list(range(resumed_from + 1, 3 * STEPS + 1))
        expected = {line["step"]: line for line in steps(whole, rank)}
        assert list(expected) == list(range(1, 3 * STEPS + 1))
        for line in steps(folder, rank):
            assert line == expected[line["step"]], "order of samples and losses"
            assert line["features"] == is_cached
    assert ends(folder, world) == ends(whole, world), "the weights of every rank"
    assert_same_files(folder, whole)


def assert_same_files(folder: Path, whole: Path) -> None:
    """Checkpoints (names, weights, optimiser, state), best.json and metrics, all but times."""
    one, other = (checkpoint.checkpoints(path) for path in (folder, whole))
    assert [path.name for path in one] == [path.name for path in other]
    for path, expected in zip(one, other, strict=True):
        assert checkpoint.fault(path) is None
        assert_identical(checkpoint.read_weights(path), checkpoint.read_weights(expected))
        states = [checkpoint.read_state(each) for each in (path, expected)]
        for state in states:
            state["state"].pop("seconds")
        assert_identical(*states)
    rows = [[json.loads(line) for line in (path / "metrics.jsonl").open()] for path in (folder, whole)]
    for row in (*rows[0], *rows[1]):
        del row["time_s"], row["images_per_s"]
    assert rows[0] == rows[1]
    best = [json.loads((path / "best.json").read_text()) for path in (folder, whole)]
    assert best[0] == best[1]


def assert_identical(one, other, where="state"):
    """Equal in every bit and type."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_identical(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_identical(*pair, f"{where}[{number}]")
    elif torch.is_tensor(one):
        assert one.dtype == other.dtype and torch.equal(one, other), where
    else:
        assert one == other, where


@pytest.mark.parametrize(("name", "is_cached", "world", "kill"), FAST)
def test_resume_is_exact(tmp_path, pack, uninterrupted, name, is_cached, world, kill):
    check(tmp_path / "run", pack, uninterrupted(name, is_cached, world), name, is_cached, world, kill)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "is_cached", "world", "kill"), CASES)
def test_resume_is_exact_for_all(tmp_path, pack, uninterrupted, name, is_cached, world, kill):
    check(tmp_path / "run", pack, uninterrupted(name, is_cached, world), name, is_cached, world, kill)
    print(f"case {CASES.index((name, is_cached, world, kill)) + 1} of {len(CASES)}: exact")
    shutil.rmtree(tmp_path / "run")


DAMAGES = {
    "truncated": lambda content: content[: len(content) // 2],
    "zeroed": lambda content: bytes(len(content)),
    "a bit flipped": lambda content: content[:-9] + bytes([content[-9] ^ 4]) + content[-8:],
}


@pytest.mark.parametrize(
    ("damage", "file"),
    [*zip([*DAMAGES, "a bit flipped"], [*checkpoint.OWN, checkpoint.MANIFEST], strict=True)],
)
def test_a_damaged_checkpoint_costs_its_interval_only(tmp_path, pack, uninterrupted, damage, file):
    """Killed at step 7, and the checkpoint of step 6 is damaged: it goes on from that of step 4."""
    folder = tmp_path / "run"
    fault, newest = KILLS["in mid-epoch"]
    assert train(folder, pack, words_of("dih_nm", False), 1, fault(1)) == [-9]
    path = checkpoint.newest(folder).path
    assert path.name == checkpoint.checkpoint_name(1, newest)
    content = (path / file).read_bytes()
    (path / file).write_bytes(DAMAGES[damage](content))
    assert (path / file).read_bytes() != content
    check_resumed(folder, pack, uninterrupted("dih_nm", False, 1), "dih_nm", False, 1, 4)
    assert f"skipped the checkpoint {path.name}: " in (folder / "said.txt").read_text()


def test_the_comparison_can_fail(uninterrupted, tmp_path):
    """One bit of one weight is enough."""
    whole = uninterrupted("dih_nm", False, 1)
    shutil.copytree(whole, tmp_path / "copy")
    assert_same_files(tmp_path / "copy", whole)
    weights = checkpoint.read_weights(checkpoint.newest(whole).path)
    changed = {key: value.clone() for key, value in weights.items()}
    first = next(iter(changed.values())).view(-1).view(torch.int32)
    first[0] ^= 1
    with pytest.raises(AssertionError):
        assert_identical(changed, weights)
