"""Training steps of the paper's models (forward, loss, backward, optimiser), tuned against plain PyTorch.

A batch stays on the device, so that nothing but the step is timed. On a CPU each side has a process of its own, because
what a process has done with its memory so far decides how long it takes to get more. The sides of each model:

    without     the model in plain PyTorch: float32, NCHW, torch's default Adam, memory given back to the kernel; a
                detector's encoder runs in each step and its decoder enlarges by repetition before a 3x3 convolution
    eager       as before, but the encoder's output is kept and the decoder convolves before it enlarges
    ...         the values of the configuration's ``speed`` and ``train.precision``, one added after the other

The floor is the arithmetic of a step at the machine's measured peak, that of a large matrix product. On a GPU each
convolution and matrix product takes at least its FLOPs / peak or its bytes / bandwidth, whichever is longer, and the
optimiser 34 bytes a parameter / bandwidth.
"""

import gc
import math
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch

from nrh_dist.engine import speed
from nrh_dist.engine.dist import own_device
from nrh_dist.engine.progress import Say
from nrh_dist.workflows import floors
from nrh_dist.workflows.floors import Operation
from nrh_dist.workflows.measure import Figure, Side, figure, in_turns, new_process, ratios
from nrh_dist.workflows.steps import Recipe, Step, has_encoder

MODELS = ("dih_m", "ptc_dih", "ptc_att_dih")
KEPT = {
    "ptc_dih": (1.9, "kept features and the decoder that convolves before it enlarges"),
    "ptc_att_dih": (3.5, "kept features"),
}
TUNED_TARGETS = {"cpu": 1.3, "cuda": 2.0}
BATCHES = {"cpu": 8, "cuda": 32}
WARM_UP = {"cpu": 2, "cuda": 5}  # steps
FLOORS = {
    "cpu": "its convolutions and matrix products at the measured peak",
    "cuda": "its convolutions and matrix products at the measured peak or bandwidth, and the bytes of Adam",
}
UNTUNED = (
    *("speed.channels_last=false", "speed.fused_adam=false", "speed.compile=none", "speed.keep_memory=false"),
    "train.precision=float32",
)


class Variant(NamedTuple):
    """One more value of the configuration, on top of those before it. ``is_beside``: only told, and not kept on."""

    name: str
    word: str
    is_beside: bool = False


@dataclass(frozen=True)
class Settings:
    """The paper's width and size. ``batch`` None: 8 on a CPU, 32 on a GPU. A measurement lasts ``least`` seconds."""

    width: float = 1.0
    size: int = 256
    batch: int | None = None
    rounds: int = 7
    least: float = 0.5
    models: tuple[str, ...] = MODELS


def bench(say: Say, settings: Settings | None = None, variants: Sequence[Variant] | None = None) -> list[Figure]:
    """The figures of all models, on the GPU where there is one, else on all cores of the CPU."""
    settings, device = settings or Settings(), own_device()
    if variants is None:
        variants = variants_of(device, say)
    figures = []
    for name in settings.models:
        figures += _of_model(name, settings, variants, device, say)
        torch.compiler.reset()
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return figures


def variants_of(device: torch.device, say: Say) -> list[Variant]:
    """What is tuned on ``device``, in this order; the last that is not only told is what the target speaks of.

    On a CPU, what is on by default; beside it channels last, torch.compile, and bfloat16 where it has that.
    """
    fused = Variant("fused Adam", "speed.fused_adam=true")
    in_nhwc = Variant("channels_last", "speed.channels_last=true")
    compiled = [Variant("torch.compile", "speed.compile=default")]
    half = [Variant("bfloat16", "train.precision=bfloat16")] if speed.has_bfloat16(device) else []
    if not compiles(device):
        say("torch.compile finds no compiler here: it is left out")
        compiled = []
    if device.type == "cuda":
        graphs = [Variant("CUDA graphs", "speed.compile=reduce-overhead")] if compiled else []
        return [*half, in_nhwc, fused, *compiled, *graphs]
    beside = [one._replace(is_beside=True) for one in (in_nhwc, *compiled, *half)]
    return [Variant("kept memory", "speed.keep_memory=true"), fused, *beside]


def compiles(device: torch.device) -> bool:
    """Whether torch.compile works here, which needs a compiler of C++ and, on a GPU, triton."""
    try:
        torch.compile(lambda one: one.sin() + 1)(torch.ones(8, device=device))
    except Exception:  # torch raises many kinds
        return False
    return True


def _of_model(
    name: str, settings: Settings, variants: Sequence[Variant], device: torch.device, say: Say
) -> list[Figure]:
    batch, kept = settings.batch or BATCHES[device.type], has_encoder(name)
    # Only batches of the configured size run compiled.
    words = [f"model.name={name}", f"model.width={settings.width}", f"data.size={settings.size}"]
    words.append(f"train.batch_size={batch}")
    recipes = {"without": Recipe([*words, *UNTUNED], True, False)} if kept else {}
    recipes["eager"] = Recipe([*words, *UNTUNED], True, kept)
    added, tuned = [*words, *UNTUNED], "eager"
    for variant in variants:
        recipes[variant.name] = Recipe([*added, variant.word], False, kept)
        if not variant.is_beside:
            added, tuned = [*added, variant.word], variant.name
    say(f"step: {name}, {settings.rounds} rounds of {', '.join(recipes)} in turns")
    eager = recipes["eager"].step(device, say)
    operations = {
        "eager": floors.operations_of(eager),
        tuned: floors.operations_of(Recipe([*added, "speed.compile=none"], False, kept).step(device, say)),
    }
    costs = _costs(recipes, operations, settings, device, say)
    measured = _Measured(costs, operations, eager.parameters, batch, device)
    where = "one GPU" if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    unit = f"seconds a step, batch {batch}, {settings.size} px, width {settings.width:g}, {where}"

    def against(title: str, ours: str, peer: str, target: float | None, peer_is: str, note: str = "") -> Figure:
        return measured.with_floor(
            figure(f"{name}, {title}", ratios(costs[peer], costs[ours]), target, peer_is, unit, note), ours
        )

    figures = []
    if kept:
        target, what = KEPT[name]
        figures.append(against(what, "eager", "without", target, "the step without", "both: plain PyTorch otherwise"))
    chosen = ", ".join(variant.name for variant in variants if not variant.is_beside)
    same = "the same model in plain PyTorch"
    figures.append(against("tuned", tuned, "eager", TUNED_TARGETS[device.type], same, chosen))
    for number, variant in enumerate(variants):
        if variant.name == tuned:
            continue
        before = [one.name for one in variants[:number] if not one.is_beside]
        figures.append(against(" + ".join([*before, variant.name]), variant.name, "eager", None, same))
    if kept:
        figures.append(against("all together", tuned, "without", None, "plain PyTorch without either"))
    return figures


@dataclass(frozen=True)
class _Measured:
    """Costs of each side by round, and the operations of those sides that have a floor."""

    costs: dict[str, list[float]]
    operations: dict[str, list[Operation]]
    parameters: int
    batch: int
    device: torch.device

    def with_floor(self, found: Figure, side: str) -> Figure:
        """``found`` with the floor of ``side``, where it has one, and on a GPU with its times."""
        on_gpu = self.device.type == "cuda"
        middle = statistics.median(self.costs[side])
        absolute = {"ms a step": 1000 * middle, "images/s": self.batch / middle} if on_gpu else {}
        if side in self.operations:
            found = found.above(self.costs[side], self._least(side, True), FLOORS[self.device.type])
            if on_gpu:
                absolute["% of the measured peak"] = 100 * statistics.median(
                    ratios(self._least(side, False), self.costs[side])
                )
        return replace(found, absolute={key: float(f"{value:.4g}") for key, value in absolute.items()})

    def _least(self, side: str, with_bytes: bool) -> list[float]:
        """Seconds of the floor, by round."""
        operations = self.operations[side]
        types = {one.dtype for one in operations}
        bandwidths = self.costs.get("byte") if with_bytes else None
        return [
            floors.least_seconds(
                operations,
                {dtype: self.costs[str(dtype)][number] for dtype in types},
                bandwidths[number] if bandwidths else None,
                self.parameters,
            )
            for number in range(len(self.costs[side]))
        ]


def _costs(
    recipes: dict[str, Recipe],
    operations: dict[str, list[Operation]],
    settings: Settings,
    device: torch.device,
    say: Say,
) -> dict[str, list[float]]:
    """Seconds a step of each side, a FLOP in each type of number, and on a GPU a byte; by round."""
    with ExitStack() as processes:
        sides = {name: _side(one, settings.least, device, say, processes) for name, one in recipes.items()}
        for dtype in {one.dtype for some in operations.values() for one in some}:
            sides[str(dtype)] = partial(_seconds_a_flop, device, dtype)
        if device.type == "cuda":
            sides["byte"] = lambda _: floors.seconds_a_byte(device)
        return in_turns(sides, settings.rounds)


def _seconds_a_flop(device: torch.device, dtype: torch.dtype, _: int) -> float:
    return floors.seconds_a_flop(device, dtype)


def _side(recipe: Recipe, least: float, device: torch.device, say: Say, processes: ExitStack) -> Side:
    """Seconds a step, over as many steps as take ``least`` seconds; on a CPU in a process of its own."""
    if device.type == "cuda":
        timed = Timed(recipe.step(device, say), least, device)
        return lambda _: timed.seconds()
    process = processes.enter_context(new_process())
    for line in process.submit(_begin, recipe, least).result():
        say(line)
    return lambda _: process.submit(_seconds_of_this_process).result()


class Timed:
    """A step that is warm, and how often it is repeated for one measurement."""

    def __init__(self, step: Step, least: float, device: torch.device) -> None:
        self.step, self.device = step, device
        for _ in range(WARM_UP[device.type]):
            step()
        self.repeats = math.ceil(least / floors.timed(step, 1, device))

    def seconds(self) -> float:
        """Seconds a step."""
        return floors.timed(self.step, self.repeats, self.device)


_of_this_process: Timed | None = None


def _begin(recipe: Recipe, least: float) -> list[str]:
    """Prepare this process for one side; what there is to say of it."""
    global _of_this_process
    said: list[str] = []
    if recipe.config.speed.keep_memory:
        speed.keep_memory(True)
    device = torch.device("cpu")
    _of_this_process = Timed(recipe.step(device, said.append), least, device)
    return said


def _seconds_of_this_process() -> float:
    assert _of_this_process is not None
    return _of_this_process.seconds()
