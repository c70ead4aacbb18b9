"""``nrh bench step``: its sides compute the same, its floor counts what torch counts, and it runs without Ray."""

import multiprocessing
import subprocess
import sys
from contextlib import ExitStack

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nrh_dist import config as configuration
from nrh_dist.engine import speed
from nrh_dist.workflows import bench_step, floors, measure, steps
from nrh_dist.workflows.bench_step import UNTUNED, Settings, Variant
from nrh_dist.workflows.floors import Operation

CPU = torch.device("cpu")
SMALL = Settings(width=0.125, size=64, batch=2, rounds=2, least=0.001)
TWO = [Variant("channels_last", "speed.channels_last=true"), Variant("fused Adam", "speed.fused_adam=true")]


def step(name, plain=True, features=False, words=UNTUNED):
    words = [f"model.name={name}", "model.width=0.125", "data.size=64", "model.dropout=false", *words]
    images = steps.random_images(2, 64, CPU)
    return steps.Step(configuration.load(None, words), images, CPU, print, plain=plain, features=features)


@pytest.mark.parametrize("name", bench_step.MODELS)
def test_a_step_learns(name):
    learning = step(name)
    found = [learning().item() for _ in range(8)]
    assert found[-1] < found[0]


@pytest.mark.parametrize("name", ["ptc_dih", "ptc_att_dih"])
def test_all_sides_compute_the_same(name):
    """Two steps: the second sees what the first one's optimiser did."""
    tuned = [word for word in UNTUNED if not word.startswith(("speed.channels_last", "speed.fused_adam"))]
    tuned += ["speed.channels_last=true", "speed.fused_adam=true"]
    sides = [step(name), step(name, features=True), step(name, plain=False, features=True, words=tuned)]
    losses = torch.tensor([[side().item() for _ in range(2)] for side in sides])
    assert torch.allclose(losses, losses[:1].expand_as(losses), rtol=1e-4)


def test_the_peers_decoder_enlarges_and_computes_the_same():
    torch.manual_seed(0)
    ours, peer = step("ptc_dih", features=True).learner, step("ptc_dih").learner
    assert not [one for one in ours.modules() if isinstance(one, torch.nn.Upsample)]
    assert len([one for one in peer.modules() if isinstance(one, torch.nn.Upsample)]) == 3
    features = torch.rand(2, 15, 7, 7)
    with torch.no_grad():
        expected, found = ours.eval().detector.decoder(features), peer.eval().detector.decoder(features)
    assert found.std() > 0 and torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", bench_step.MODELS)
def test_the_ledger_counts_what_torch_counts(name):
    side = step(name)
    side()
    with FlopCounterMode(display=False) as counter:
        side()
    operations = floors.operations_of(side)
    assert sum(one.flops for one in operations) == counter.get_total_flops() > 0
    assert {one.dtype for one in operations} == {torch.float32}


def test_the_bytes_of_a_product_are_those_of_its_three_matrices():
    one, other = torch.zeros(4, 8), torch.zeros(8, 16)
    assert floors.operations_of(lambda: one @ other) == [
        Operation(2 * 4 * 8 * 16, 4 * (4 * 8 + 8 * 16 + 4 * 16), torch.float32)
    ]


def test_the_floor_takes_the_longer_of_arithmetic_and_bytes():
    work = [Operation(100, 10, torch.float32), Operation(10, 100, torch.bfloat16)]
    peaks = {torch.float32: 1.0, torch.bfloat16: 0.5}
    assert floors.least_seconds(work, peaks, None, 7) == 105
    assert floors.least_seconds(work, peaks, 2.0, 7) == 100 + 200 + 2 * 34 * 7


def test_the_peak_is_measured(monkeypatch):
    monkeypatch.setattr(floors, "SIDES", {"cpu": 256})
    before = torch.get_float32_matmul_precision()
    assert 1e-14 < floors.seconds_a_flop(CPU, torch.float32) < 1e-7
    assert torch.get_float32_matmul_precision() == before
    monkeypatch.setattr(floors, "COPIED", 1 << 20)
    assert 1e-13 < floors.seconds_a_byte(CPU) < 1e-7


@pytest.mark.slow
def test_the_figures(monkeypatch):
    """Of all models; how a side is measured has tests of its own."""
    monkeypatch.setattr(floors, "SIDES", {"cpu": 64})
    monkeypatch.setattr(bench_step, "_side", lambda *_: lambda _: 1.0)
    figures = bench_step.bench(print, SMALL, [*TWO, Variant("lower rate", "optim.lr=0.0001", is_beside=True)])
    targets = {one.name: one.target for one in figures if one.target}
    assert targets == {
        "dih_m, tuned": 1.3,
        "ptc_dih, kept features and the decoder that convolves before it enlarges": 1.9,
        "ptc_dih, tuned": 1.3,
        "ptc_att_dih, kept features": 3.5,
        "ptc_att_dih, tuned": 1.3,
    }
    assert {one.name for one in figures if one.name.startswith("ptc_dih") and not one.target} == {
        "ptc_dih, channels_last",
        "ptc_dih, channels_last + fused Adam + lower rate",
        "ptc_dih, all together",
    }
    assert all(one.floor and one.floor > 1 for one in figures if one.target)
    assert all(one.rounds == 2 and not one.absolute for one in figures)  # absolute times are for a GPU
    assert next(one for one in figures if one.name == "dih_m, tuned").note == "channels_last, fused Adam"
    assert "batch 2, 64 px, width 0.125" in figures[0].unit


def test_what_is_on_by_default_is_what_is_tuned_on_a_cpu(monkeypatch):
    monkeypatch.setattr(bench_step, "compiles", lambda device: True)
    given = [one.word for one in bench_step.variants_of(CPU, print) if not one.is_beside]
    assert (
        configuration.load(None, [*UNTUNED, *given]).speed
        == configuration.load(None, ["speed.channels_last=false", "speed.compile=none"]).speed
    )
    assert not speed.channels_last(configuration.load(None, []), CPU)


def test_a_side_keeps_its_memory_where_it_is_asked_to(monkeypatch):
    told = []
    monkeypatch.setattr(bench_step.speed, "keep_memory", told.append)
    monkeypatch.setattr(bench_step, "_of_this_process", None)
    words = ["model.name=dih_m", "model.width=0.125", "data.size=64", "train.batch_size=2", *UNTUNED]
    for kept, expected in (("true", [True]), ("false", [])):
        assert bench_step._begin(steps.Recipe([*words, f"speed.keep_memory={kept}"], True, False), 0.001) == []
        assert told == expected, "plain PyTorch is left as it comes"
        assert bench_step._seconds_of_this_process() > 0
        told.clear()


def test_each_side_of_a_cpu_has_a_process_of_its_own():
    words = ["model.name=dih_m", "model.width=0.125", "data.size=64", "train.batch_size=2"]
    recipe = steps.Recipe([*words, *UNTUNED], True, False)
    with ExitStack() as processes:
        sides = [bench_step._side(recipe, 0.001, CPU, print, processes) for _ in range(2)]
        assert all(0 < side(0) < 60 for side in sides)
        assert len(multiprocessing.active_children()) == 2
    assert bench_step._of_this_process is None


def test_compiling_is_left_out_where_it_fails(monkeypatch):
    def fail(function):
        raise RuntimeError("no compiler")

    said = []
    monkeypatch.setattr(torch, "compile", fail)
    assert "torch.compile" not in [one.name for one in bench_step.variants_of(CPU, said.append)]
    assert said == ["torch.compile finds no compiler here: it is left out"]


def test_what_is_tuned_depends_on_the_device(monkeypatch):
    monkeypatch.setattr(bench_step, "compiles", lambda device: True)
    monkeypatch.setattr(bench_step.speed, "has_bfloat16", lambda device: True)
    on_cpu, on_gpu = (bench_step.variants_of(torch.device(one), print) for one in ("cpu", "cuda"))
    assert [one.name for one in on_cpu if not one.is_beside] == ["kept memory", "fused Adam"], "the defaults"
    assert [one.name for one in on_cpu if one.is_beside] == ["channels_last", "torch.compile", "bfloat16"]
    assert [one.name for one in on_gpu] == [
        *("bfloat16", "channels_last", "fused Adam", "torch.compile", "CUDA graphs"),
    ]
    assert not [one for one in on_gpu if one.is_beside]
    monkeypatch.setattr(bench_step.speed, "has_bfloat16", lambda device: False)
    for device in ("cpu", "cuda"):
        without = bench_step.variants_of(torch.device(device), print)
        assert "bfloat16" not in [one.name for one in without]


@pytest.mark.slow
def test_the_compiled_variant_is_compiled():
    """Its learner tells where it cannot be, and the compiler counts its graphs."""
    if not bench_step.compiles(CPU):
        pytest.skip("no compiler")
    torch._dynamo.utils.counters.clear()
    words = ["model.name=ptc_att_dih", "model.width=0.125", "data.size=64", "train.batch_size=2", *UNTUNED]
    assert bench_step._begin(steps.Recipe([*words, "speed.compile=default"], False, True), 0.001) == []
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


@pytest.mark.slow
def test_it_needs_little_more_than_torch(tmp_path):
    """In a process where the other libraries do not exist, with all that the command line imports for it."""
    code = (
        "import sys\n"
        "for name in ('ray', 'wandb', 'webdataset', 'lpips', 'torchvision', 'scipy', 'skimage', 'optuna', 'matplotlib',"
        " 'jinja2', 'PIL', 'cv2', 'msgspec', 'pycocotools'):\n"
        "    sys.modules[name] = None\n"
        "from nrh_dist import cli\n"
        "from nrh_dist.workflows import bench, bench_step, floors, measure\n"
        "floors.SIDES = {'cpu': 64}\n"
        "models = ('dih_m', 'ptc_dih')\n"
        "small = bench_step.Settings(width=0.125, size=64, batch=2, rounds=1, least=0.001, models=models)\n"
        "variants = [bench_step.Variant('channels_last', 'speed.channels_last=true')]\n"
        "bench.BENCHES['step'] = lambda given, say: bench_step.bench(say, small, variants)\n"
        "cli.main(['bench', 'step', '--out', sys.argv[1] + '/a.json'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ptc_dih, tuned" in done.stdout and (tmp_path / "a.json").exists()


def test_a_gpu_is_told_in_times_and_as_a_share_of_its_peak():
    """100 FLOP at 1 ms each take 0.1 s, 50 bytes at 4 ms each take longer; the step takes 0.5 s for 8 images."""
    work = {"tuned": [Operation(100, 50, torch.bfloat16)]}
    costs = {"tuned": [0.5, 0.5], "torch.bfloat16": [0.001, 0.001], "byte": [0.004, 0.004]}
    made = measure.figure("a step", [2.0, 2.0], 2.0, "eager", "seconds a step")

    def told(device):
        return bench_step._Measured(costs, work, 0, 8, torch.device(device)).with_floor(made, "tuned")

    assert told("cuda").absolute == {"ms a step": 500.0, "images/s": 16.0, "% of the measured peak": 20.0}
    assert told("cuda").floor == 2.5 and told("cuda").floor_is == bench_step.FLOORS["cuda"]
    assert "500 ms a step" in told("cuda").line()
    assert told("cpu").absolute == {}
    without = bench_step._Measured(costs, work, 0, 8, torch.device("cuda")).with_floor(made, "byte")
    assert without.floor is None and without.absolute == {"ms a step": 4.0, "images/s": 2000.0}
