"""How a model is trained fast, without changing what it learns: precision, memory, compilation, optimiser."""

import ctypes
import os
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Adam, Optimizer

from nrh_dist.data.order import step_rows
from nrh_dist.engine.dist import Place, SynchronisedBatchNorm2d, synchronise_batchnorm
from nrh_dist.engine.progress import Say
from nrh_dist.errors import UserError
from nrh_dist.location import cache_dir
from nrh_dist.schema import Config

REASON = 160  # letters of an error of the compiler that are shown
# glibc's mallopt, from malloc.h; without keeping, the thresholds are the highest that glibc itself adjusts them to.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
KEEPING = {MMAP_MAX: 0, TRIM_THRESHOLD: -1}
GIVING_BACK = {MMAP_MAX: 65_536, MMAP_THRESHOLD: 32 << 20, TRIM_THRESHOLD: 64 << 20}
COMPILED, COMPILER_CACHE = "compiled", "TORCHINDUCTOR_CACHE_DIR"  # our place in the cache, and who is told of it
IMAGES_PER_SAMPLE = {"thresholds": 3}  # by stage; one elsewhere


def has_bfloat16(device: torch.device) -> bool:
    """Whether the arithmetic of ``device`` knows bfloat16; emulated, it is slower than float32 (11 times on a CPU)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def bfloat16(config: Config, device: torch.device) -> bool:
    """Whether the forward pass runs under bfloat16 autocast: ``train.precision``, where auto is yes on a GPU with it.

    ``UserError`` where it is asked for and ``device`` has not got it.
    """
    wanted = config.train.precision
    if wanted == "bfloat16" and not has_bfloat16(device):
        raise UserError(
            f"train.precision=bfloat16: this {'GPU' if device.type == 'cuda' else 'CPU'} has no bfloat16 arithmetic; "
            "give train.precision=float32 or auto"
        )
    return wanted == "bfloat16" or (wanted == "auto" and device.type == "cuda" and has_bfloat16(device))


def keep_memory(is_kept: bool) -> None:
    """Let this process keep the memory that it frees, or give it back to the kernel as glibc does by itself.

    A training step on a CPU frees gigabytes and takes as many again, and the kernel clears each page of what was given
    back: a third of the step. Where the C library is another one, nothing happens.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return
    for option, value in (KEEPING if is_kept else GIVING_BACK).items():
        library.mallopt(option, value)
    if not is_kept:
        library.malloc_trim(0)


def optimiser(parameters: Iterable[nn.Parameter], config: Config, device: torch.device) -> Optimizer:
    """Adam, fused into one pass over ``parameters`` (on ``device`` already) where ``speed.fused_adam``."""
    fused = config.speed.fused_adam
    adam = Adam(parameters, lr=config.optim.lr, eps=config.optim.eps, fused=fused)

    def fit_in(loaded: Optimizer) -> None:
        """Bring a loaded state into the form of this run, whatever the ``speed`` settings of the run that saved it."""
        for group in loaded.param_groups:
            group["fused"] = fused
            for parameter in group["params"]:
                state = loaded.state.get(parameter, {})
                for key, value in state.items():
                    if key == "step":
                        state[key] = value.to(device if fused else "cpu")
                    else:  # fused Adam goes through memory as it lies and takes other strides for other elements
                        state[key] = torch.empty_like(parameter, requires_grad=False).copy_(value)

    adam.register_load_state_dict_post_hook(fit_in)
    return adam


def learner(model: nn.Module, config: Config, place: Place, say: Say) -> nn.Module:
    """What to call in a training step in place of ``model``: the same parameters, faster, over all ranks.

    Takes what ``model`` takes; outputs are float32 under autocast too. ``model`` gets its memory format here,
    and its BatchNorms are synchronised where there are several ranks; its state keys stay. ``UserError`` like
    ``bfloat16``.
    """
    memory_format = torch.channels_last if channels_last(config, place.device) else torch.contiguous_format
    model.to(memory_format=memory_format)
    learns = any(parameter.requires_grad for parameter in model.parameters())
    if learns and place.world > 1:
        synchronise_batchnorm(model)
    eager = _Eager(model, place.device.type, bfloat16(config, place.device), memory_format)
    wrapped: nn.Module = eager
    mode, size = _compilation(config, place), config.train.batch_size
    if learns and mode != "none" and size >= place.world:
        rows = len(step_rows(np.arange(size), 0, size, place.rank, place.world))
        wrapped = _Compiled(eager, mode, rows * IMAGES_PER_SAMPLE.get(config.stage, 1), place, say)
    if learns and place.world > 1:
        wrapped = DistributedDataParallel(wrapped, forward_sync_buffers=False)
    return wrapped


def channels_last(config: Config, device: torch.device) -> bool:
    """``speed.channels_last``, where empty is yes on a GPU: on CPUs with AVX2 it makes PTC-DIH slower by a quarter."""
    wanted = config.speed.channels_last
    return device.type == "cuda" if wanted is None else wanted


def _compilation(config: Config, place: Place) -> str:
    """``speed.compile``, where auto is none on a CPU, and CUDA graphs for a process that is alone."""
    if config.speed.compile != "auto":
        return config.speed.compile
    if place.device.type != "cuda":
        return "none"
    return "reduce-overhead" if place.world == 1 else "default"  # collectives between graphs cost what graphs save


class _Eager(nn.Module):
    """The model with its precision and memory format."""

    def __init__(self, model: nn.Module, device_type: str, autocast: bool, memory_format: torch.memory_format) -> None:
        super().__init__()
        self.model, self.device_type, self.autocast, self.memory_format = model, device_type, autocast, memory_format

    def forward(self, *inputs: Tensor, **more: Tensor) -> Any:
        inputs = tuple(one.contiguous(memory_format=self.memory_format) for one in inputs)
        if not self.autocast:
            return self.model(*inputs, **more)
        with torch.autocast(self.device_type, torch.bfloat16):
            outputs = self.model(*inputs, **more)
        return _float32(outputs)


class _Compiled(nn.Module):
    """``eager``, compiled for training batches of ``size`` images; all others, and evaluation, run as it is.

    The first such batch is run forward and backward once for trial, without a trace: where compilation fails on any
    rank, all go on without, which is said once.
    """

    def __init__(self, eager: _Eager, mode: str, size: int, place: Place, say: Say) -> None:
        super().__init__()
        self.eager, self.mode, self.size, self.place, self.say = eager, mode, size, place, say
        self.fast: Callable[..., Any] | None = None
        self.is_settled = False

    def forward(self, *inputs: Tensor, **more: Tensor) -> Any:
        learns = self.eager.model.training and torch.is_grad_enabled()
        is_full = learns and len(inputs[0]) == self.size
        if learns and not self.is_settled and self._everywhere(is_full):
            self.fast, self.is_settled = self._tried(inputs, more), True
        return self.fast(*inputs, **more) if self.fast and is_full else self.eager(*inputs, **more)

    def _tried(self, inputs: tuple[Tensor, ...], more: dict[str, Tensor]) -> Callable[..., Any] | None:
        """The compiled forward pass, or None where it cannot be had."""
        graphs: dict[str, Any] = {"triton.cudagraphs": True} if self.mode == "reduce-overhead" else {}
        # Random numbers as without compilation, so that dropout draws the same.
        options = {"fallback_random": True, **graphs}
        for part in self.eager.modules():
            if isinstance(part, SynchronisedBatchNorm2d):  # talks to other ranks
                part.forward = torch.compiler.disable(part.forward)  # type: ignore[method-assign]
        _keep_compiled_code()
        fast = torch.compile(self.eager.forward, dynamic=False, options=options)
        # A machine without a compiler is found before the ranks depend on each other inside the model.
        reason = _failure(lambda: _compile_a_little(self.place.device)) if self.place.world > 1 else None
        if self._everywhere(reason is None):
            reason = _failure(lambda: self._run_for_trial(fast, inputs, more))
            if self._everywhere(reason is None):
                return fast
        reason = reason or "on another worker"
        self.say(f"torch.compile fails ({reason}): training goes on without it; speed.compile=none skips the attempt")
        return None

    def _run_for_trial(self, fast: Callable[..., Any], inputs: tuple[Tensor, ...], more: dict[str, Tensor]) -> None:
        """Forward and backward, after which nothing has changed: no gradients, statistics or random state."""
        model, device = self.eager.model, self.place.device
        before = [buffer.clone() for buffer in model.buffers()]
        try:
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                outputs = fast(*inputs, **more)
                total = sum(one.sum() for one in _tensors(outputs) if one.requires_grad)
                learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
                torch.autograd.grad(total, learning, allow_unused=True)  # type: ignore[arg-type]
        finally:
            with torch.no_grad():
                for buffer, value in zip(model.buffers(), before, strict=True):
                    buffer.copy_(value)

    def _everywhere(self, holds: bool) -> bool:
        """Whether it holds on all ranks."""
        if self.place.world == 1:
            return holds
        value = torch.tensor(float(holds), device=self.place.device)
        dist.all_reduce(value, dist.ReduceOp.MIN)
        return bool(value.item())


def _keep_compiled_code() -> None:
    """Beside the packs: trials of a sweep compile the same, and the compiler's own place does not last.

    Whatever touches the compiler first, as an optimiser may, makes it name its own place.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    if os.environ.get(COMPILER_CACHE, default_cache_dir()) == default_cache_dir():
        os.environ[COMPILER_CACHE] = str(cache_dir() / COMPILED)


def _failure(attempt: Callable[[], None]) -> str | None:
    """Why ``attempt`` fails, in few words, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's advice is not for the user
            attempt()
    except Exception as error:  # torch raises many kinds: no compiler, no triton, an error of its own
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"[:REASON]
    return None


def _compile_a_little(device: torch.device) -> None:
    value = torch.ones(8, device=device, requires_grad=True)
    torch.compile(lambda x: (2 * x).relu().sum(), dynamic=False)(value).backward()


def _tensors(outputs: Any) -> list[Tensor]:
    return [one for one in (outputs if isinstance(outputs, tuple) else (outputs,)) if one is not None]


def _float32(outputs: Any) -> Any:
    """A tensor, or a ``Prediction`` of tensors and None, in float32."""
    if isinstance(outputs, tuple):
        converted: list[Any] = [None if one is None else one.float() for one in outputs]
        return type(outputs)(*converted)
    return outputs.float()
