import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from packs import write_small_pack
from ranks import run_ranks
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from nrh_dist import config
from nrh_dist.data.feed import gather
from nrh_dist.data.pack import open_pack
from nrh_dist.engine import checkpoint, run, speed
from nrh_dist.engine.assemble import new_model
from nrh_dist.engine.dist import Place, sum_over_ranks
from nrh_dist.engine.fit import seed_step
from nrh_dist.engine.tasks import task_of
from nrh_dist.errors import UserError
from nrh_dist.location import cache_dir

COMMON = ("preset=tiny", "model.width=0.1", "train.batch_size=4", "data.clean_fraction=0.3")
OFF = ("speed.channels_last=false", "speed.fused_adam=false", "speed.compile=none", "train.precision=float32")
CPU, GPU = torch.device("cpu"), torch.device("cuda")
BATCHES = ((0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10), (0, 2, 4, 6))  # one is ragged
MODELS = [("dih_nm",), ("ptc_dih",), ("ptc_dih", "model.freeze=none", "model.dropout=true")]


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_small_pack(tmp_path_factory.mktemp("speed"), train=12)


def configured(name, *words):
    return config.load(None, [*COMMON, f"model.name={name}", *words])


def train(one, pack, place=None, said=None):
    """Losses and gradients of a few steps with ragged batches, and the weights after them."""
    place = place or Place()
    model = new_model(one, lambda _: None).to(place.device)
    keys = list(model.state_dict())
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = speed.optimiser(trainable, one, place.device)
    learner = speed.learner(model, one, place, (said if said is not None else []).append)
    assert list(model.state_dict()) == keys
    learner.train()
    task, found, gradients = task_of(one, pack), [], []
    for step, rows in enumerate(BATCHES):
        seed_step(0, step, 0)
        own = np.array(rows)[len(rows) * place.rank // place.world : len(rows) * (place.rank + 1) // place.world]
        losses = task.losses(learner, gather(pack, own, place.device), 0)
        assert losses.dtype == torch.float32
        optimiser.zero_grad(set_to_none=True)
        (losses.sum() * place.world / len(rows)).backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in trainable]))
        optimiser.step()
        found.append(sum_over_ranks(losses.detach().sum(), place).item() / len(rows))
    return np.array(found), torch.stack(gradients), model.state_dict()


@pytest.mark.parametrize("model", MODELS, ids=" ".join)
@pytest.mark.parametrize("word", ["speed.channels_last=true", "speed.fused_adam=true"])
def test_an_option_changes_nothing_but_rounding(pack, model, word):
    """The first loss to 1e-5, the second to 1e-4, others to 1e-3: Adam's first steps amplify rounding."""
    plain, _, _ = train(configured(*model, *OFF), pack)
    tuned, _, state = train(configured(*model, *OFF, word), pack)
    np.testing.assert_allclose(tuned[:1], plain[:1], rtol=1e-5)
    np.testing.assert_allclose(tuned[1:2], plain[1:2], rtol=1e-4)
    np.testing.assert_allclose(tuned, plain, rtol=1e-3)
    kernel = next(value for key, value in state.items() if value.ndim == 4 and value.shape[1] > 1)
    assert kernel.is_contiguous(memory_format=torch.channels_last) == ("channels_last" in word)


KEPT_MEMORY = """
import resource, sys
from nrh_dist.engine import checkpoint, run, speed
import torch
torch.manual_seed(0)
torch.set_num_threads(1)
speed.keep_memory({is_kept})
convolution = torch.nn.Conv2d(3, 32, 3, padding=1)
images = torch.ones(4, 3, 512, 512)
for number in range(20):
    if number == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    convolution(images).relu().sum().backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, convolution.weight.grad.sum().item())
"""


def test_kept_memory_is_not_taken_from_the_kernel_again():
    """Page faults of ten steps, in processes of their own; each step frees 134 MB five times. The same result.

    Ten steps before them, as the heap grows a block more now and then until it has room for each order of blocks.
    """
    found = []
    for is_kept in (True, False):
        code = KEPT_MEMORY.format(is_kept=is_kept)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        found.append(done.stdout.split())
    (few, one), (many, other) = found
    assert int(few) < int(many) / 10 and int(many) > 1_000_000 and one == other


def test_a_training_on_a_cpu_keeps_its_memory(tmp_path, pack, monkeypatch):
    told = []
    monkeypatch.setattr(run.speed, "keep_memory", told.append)
    for word in ("true", "false"):
        one = configured("dih_nm", "train.epochs=1", "data.val_fraction=0.3", f"speed.keep_memory={word}")
        one.run.root, one.run.name = str(tmp_path), word
        run.run(one, pack.root, Place(), lambda row: None, lambda line: None)
    assert told == [True, False]
    weights = [checkpoint.read_weights(checkpoint.newest(tmp_path / word).path) for word in ("true", "false")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_c_library_without_mallopt_is_left_alone(monkeypatch):
    monkeypatch.setattr(speed.ctypes, "CDLL", lambda name: object())
    speed.keep_memory(True)
    speed.keep_memory(False)


def test_channels_last_is_for_gpus_unless_it_is_asked_for():
    assert [speed.channels_last(configured("dih_nm"), device) for device in (CPU, GPU)] == [False, True]
    for word in (True, False):
        asked = configured("dih_nm", f"speed.channels_last={word}")
        assert [speed.channels_last(asked, device) for device in (CPU, GPU)] == [word, word]


@pytest.mark.parametrize("model", MODELS[:2], ids=" ".join)
def test_bfloat16_trains_alike(pack, model, monkeypatch):
    """Losses of four steps to 3 %, and not to the last bit: 8 bits of mantissa were used. Weights stay float32."""
    monkeypatch.setattr(speed, "has_bfloat16", lambda device: True)
    plain, _, _ = train(configured(*model, *OFF), pack)
    tuned, gradient, state = train(configured(*model, *OFF, "train.precision=bfloat16"), pack)
    np.testing.assert_allclose(tuned, plain, rtol=0.03)
    assert not np.allclose(tuned, plain, rtol=1e-6)
    assert gradient.dtype == torch.float32
    assert all(value.dtype in (torch.float32, torch.int64) for value in state.values())


def test_precision_goes_by_capability(monkeypatch):
    monkeypatch.setattr(speed, "has_bfloat16", lambda device: True)
    assert [speed.bfloat16(configured("dih_nm"), device) for device in (CPU, GPU)] == [False, True]
    assert speed.bfloat16(configured("dih_nm", "train.precision=bfloat16"), CPU)
    assert not speed.bfloat16(configured("dih_nm", "train.precision=float32"), GPU)
    monkeypatch.setattr(speed, "has_bfloat16", lambda device: False)
    assert not speed.bfloat16(configured("dih_nm"), GPU)
    for device, name in ((CPU, "CPU"), (GPU, "GPU")):
        with pytest.raises(UserError, match=f"this {name} has no bfloat16.*give train.precision=float32 or auto"):
            speed.bfloat16(configured("dih_nm", "train.precision=bfloat16"), device)


@pytest.mark.parametrize("flags", [{"avx512_bf16": True}, {"amx_bf16": True}, {"avx2": True}])
def test_a_cpu_has_bfloat16_by_its_instructions(monkeypatch, flags):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags)
    assert speed.has_bfloat16(CPU) == ("avx2" not in flags)


def test_a_gpu_that_emulates_bfloat16_has_not_got_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert not speed.has_bfloat16(GPU)


def test_how_auto_compiles():
    def mode(device, world, word="auto"):
        return speed._compilation(configured("dih_nm", f"speed.compile={word}"), Place(0, world, device))

    assert mode(CPU, 1) == mode(CPU, 2) == "none"
    assert (mode(GPU, 1), mode(GPU, 2)) == ("reduce-overhead", "default")
    assert mode(GPU, 1, "none") == "none"
    assert mode(CPU, 1, "default") == "default"


@pytest.mark.parametrize("saved_by", [(False, True), (True, False), (True, True), (False, False)])
def test_a_state_is_loaded_into_any_other_setting(saved_by):
    """(channels_last, fused) of the saving run against those of this one: fused Adam would mix up the elements."""

    def run_of(channels_last, fused):
        torch.manual_seed(0)
        layer = torch.nn.Conv2d(3, 4, 3)
        if channels_last:
            layer.to(memory_format=torch.channels_last)
        words = (f"speed.fused_adam={fused}", f"speed.channels_last={channels_last}")
        return layer, speed.optimiser(layer.parameters(), configured("dih_nm", *words), CPU)

    def step(layer, optimiser):
        optimiser.zero_grad()
        layer(torch.linspace(-1, 1, 300).view(1, 3, 10, 10).sin()).square().sum().backward()
        optimiser.step()

    first, saving = run_of(*saved_by)
    step(first, saving)
    results = []
    for here in ((False, False), (True, True)):
        layer, optimiser = run_of(*here)
        layer.load_state_dict(first.state_dict())
        optimiser.load_state_dict(deepcopy(saving.state_dict()))
        step(layer, optimiser)
        assert optimiser.param_groups[0]["fused"] == here[1]
        results.append(layer.weight.detach().contiguous())
    step(first, saving)
    for found in results:
        torch.testing.assert_close(found, first.weight.detach().contiguous(), rtol=1e-6, atol=1e-7)


def train_rank(place, root, words):
    return train(configured("ptc_dih", *words), open_pack(root), place)


@pytest.mark.parametrize("word", ["speed.channels_last=true"])
def test_two_ranks_with_all_that_a_cpu_uses_give_the_losses_of_one(tmp_path, pack, word):
    alone, gradient, _ = train(configured("ptc_dih", *OFF), pack)
    words = ("speed.compile=none", "train.precision=float32", word)
    both = run_ranks(train_rank, 2, tmp_path, pack.root, words)
    for losses, own_gradient, _ in both:
        np.testing.assert_allclose(losses, alone, rtol=1e-4)
        assert torch.nn.functional.cosine_similarity(own_gradient[-1], gradient[-1], dim=0) > 0.999


class Told(torch.nn.Module):
    """Counts what runs eagerly, as a stand-in for the compiled function."""

    def __init__(self, fails):
        super().__init__()
        self.calls, self.fails = [], fails

    def compile(self, forward, **_):
        def compiled(*inputs, **more):
            self.calls.append(len(inputs[0]))
            outputs = forward(*inputs, **more)
            if self.fails == "forward":
                raise RuntimeError("no\nway")
            if self.fails == "backward":
                return type(outputs)(_Fails.apply(outputs.image), None, None)
            return outputs

        return compiled


class _Fails(torch.autograd.Function):
    @staticmethod
    def forward(ctx, image):
        return image.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("no\nway")


@pytest.mark.parametrize("fails", ["never", "forward", "backward"])
def test_full_training_batches_are_compiled_and_a_failure_changes_nothing(pack, monkeypatch, fails):
    told = Told(fails)
    monkeypatch.setattr(torch, "compile", told.compile)
    model = ("dih_nm",)
    plain, gradient, state = train(configured(*model, *OFF), pack)
    said = []
    tuned, own_gradient, own_state = train(configured(*model, *OFF, "speed.compile=default"), pack, said=said)
    assert told.calls == ([4, 4, 4, 4] if fails == "never" else [4])  # the first for trial; the ragged one is not there
    assert said == [
        "torch.compile fails (RuntimeError: no): training goes on without it; speed.compile=none skips the attempt"
    ] * (fails != "never")
    assert (tuned == plain).all()
    assert torch.equal(gradient, own_gradient)
    assert all(torch.equal(state[key], own_state[key]) for key in state)  # BatchNorm's statistics too


@pytest.mark.parametrize("given", ["", "elsewhere", default_cache_dir()])
def test_compiled_code_is_kept_in_the_cache(pack, monkeypatch, given):
    """Where the next trial of a sweep finds it; the last place is what the compiler chooses, whoever touches it."""
    told, seen = Told("never"), []
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", given)
    if not given:
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")

    def compile(forward, **more):
        seen.append(os.environ["TORCHINDUCTOR_CACHE_DIR"])
        return told.compile(forward, **more)

    monkeypatch.setattr(torch, "compile", compile)
    train(configured("dih_nm", *OFF, "speed.compile=default"), pack)
    assert seen == ["elsewhere" if given == "elsewhere" else str(cache_dir() / "compiled")]


COMPILED = """
import sys, torch
sys.path[:0] = {paths!r}
import test_speed
from nrh_dist.data.pack import open_pack
pack = open_pack({root!r})
words = ("model.freeze=none", "model.dropout=true") if {model!r} == "ptc_dih" else ()
plain = test_speed.train(test_speed.configured({model!r}, *words, *test_speed.OFF), pack)
said = []
one = test_speed.configured({model!r}, *words, *test_speed.OFF, "speed.compile=default")
tuned = test_speed.train(one, pack, said=said)
print("said", len(said), *said)
print("graphs", torch._dynamo.utils.counters["stats"]["unique_graphs"])
print("losses", *abs(tuned[0] / plain[0] - 1))
print("gradient", ((tuned[1] - plain[1]).norm(dim=1) / plain[1].norm(dim=1))[0].item())
"""


def run_compiled(pack, tmp_path, model, **environment):
    """The lines of a fresh process by their first word, with a fresh cache of compiled code."""
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    code = COMPILED.format(paths=paths, root=str(pack.root), model=model)
    inherited = {key: value for key, value in os.environ.items() if key != "TORCHINDUCTOR_CACHE_DIR"}
    fresh = {"NRH_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**inherited, **fresh, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def test_without_a_compiler_there_is_one_line_and_the_same_result(pack, tmp_path):
    nowhere = {"CXX": str(tmp_path / "nowhere"), "PATH": str(tmp_path), "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    found = run_compiled(pack, tmp_path, "dih_nm", **nowhere)
    assert found["said"].startswith("1 torch.compile fails (")
    assert "training goes on without it" in found["said"]
    assert {*map(float, found["losses"].split()), float(found["gradient"])} == {0.0}


@pytest.mark.slow
@pytest.mark.parametrize("model", ["dih_nm", "ptc_dih"])
def test_compiled_steps_equal_eager_ones(pack, tmp_path, model):
    """Dropout included. Each step of Adam amplifies the rounding of the one before: in the first there is none."""
    found = run_compiled(pack, tmp_path, model)
    assert found["said"] == "0"
    assert int(found["graphs"]) > 0
    assert list((tmp_path / "cache" / "compiled").rglob("*.so"))
    first, second, *others = map(float, found["losses"].split())
    assert first < 1e-6 and second < 1e-5 and max(others) < 1e-3
    assert float(found["gradient"]) < 1e-4


def compiled_rank(place, root, words):
    said = []
    found = train(configured("dih_nm", *OFF, *words), open_pack(root), place, said)
    return found[0], said


@pytest.mark.slow
def test_synchronised_batchnorm_works_below_the_compiler(tmp_path, pack, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    alone, _, _ = train(configured("dih_nm", *OFF), pack)
    for losses, said in run_ranks(compiled_rank, 2, tmp_path / "ranks", pack.root, ("speed.compile=default",)):
        assert said == []
        np.testing.assert_allclose(losses, alone, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("word", "first", "later"),
    [
        ("train.precision=bfloat16", 0.03, 0.03),
        ("speed.compile=default", 1e-4, 1e-3),
        ("speed.compile=reduce-overhead", 1e-4, 1e-3),
        ("speed.channels_last=true", 1e-4, 1e-3),
        ("speed.fused_adam=true", 1e-4, 1e-3),
    ],
)
def test_what_a_gpu_uses_gives_the_losses_of_eager_steps(pack, monkeypatch, word, first, later):
    """Relative differences of the losses of four steps, one of them ragged; float32 without TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    place, said = Place(device=GPU), []

    def trained(*words):
        torch.compiler.reset()
        return train(configured("ptc_dih", "model.freeze=none", *OFF, *words), pack, place, said)[0]

    plain, tuned = trained(), trained(word)
    assert said == []
    np.testing.assert_allclose(tuned[:1], plain[:1], rtol=first)
    np.testing.assert_allclose(tuned, plain, rtol=later)
