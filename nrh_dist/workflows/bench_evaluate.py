"""Evaluation against what it could be: scikit-image's errors, models one by one, processes without a pool.

LPIPS runs with a random backbone, which takes as long as the trained one; its values are not looked at. The four models
have random weights and one encoder in common, as those that were trained with the same frozen one.
"""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from nrh_dist import metrics, perceptual
from nrh_dist.data.pack import Pack, open_pack
from nrh_dist.engine import measures, score
from nrh_dist.engine.progress import Say
from nrh_dist.engine.score import Scorer
from nrh_dist.engine.shards import Shards
from nrh_dist.launch import scoring, session
from nrh_dist.launch.evaluate import BATCH
from nrh_dist.workflows.measure import (
    Figure,
    Side,
    cpu_seconds,
    figure,
    in_turns,
    new_process,
    one_thread,
    ratios,
    seconds,
)
from nrh_dist.workflows.sample import random_checkpoint, sample_pack

MODELS = ("dih_nm", "ptc_dih", "ptc_att_dih", "gated")
ERRORS_TARGET, TOGETHER_TARGET, ACTORS_TARGET = 5.0, 1.5, 0.9
ACTORS_TIMES = 8  # times the batches of the other figures: the last batch of one actor, alone, must not count
ERRORS_SIZE = 256
ERRORS_BATCHES = (BATCH // 2, BATCH)  # 12.6 MB, and twice that, as the pool has it: the memory bounds both sides


@dataclass(frozen=True)
class Settings:
    """Models of ``width`` at ``size`` pixels; ``batches`` of images are scored by each side in each of the rounds."""

    size: int = 128
    width: float = 0.25
    batches: int = 8
    rounds: int = 5


def bench(say: Say, settings: Settings | None = None) -> list[Figure]:
    """The figures, each part in processes of its own with one thread."""
    settings = settings or Settings()
    with TemporaryDirectory(prefix="nrh-bench-") as temporary:
        folder = Path(temporary)
        pack = sample_pack(folder, settings.size, say)
        words = [str(random_checkpoint(folder, name, settings.width, settings.size)) for name in MODELS]
        with one_thread():
            found = []
            for name, measure in (("errors", _errors), ("together", _together)):
                say(f"evaluate: {name}, {settings.rounds} rounds")
                with new_process() as process:
                    found += process.submit(measure, pack.root, words, settings).result()
            say(f"evaluate: actors, {settings.rounds} rounds")
            return [*found, _actors(pack, words, settings, folder, say)]


def _errors(root: Path, words: list[str], settings: Settings) -> list[Figure]:
    """MSE and PSNR of what a model puts out, [-1, 1] and not clamped, against scikit-image."""
    return [_errors_of(batch, settings) for batch in ERRORS_BATCHES]


def _errors_of(batch: int, settings: Settings) -> Figure:
    from skimage.metrics import mean_squared_error, peak_signal_noise_ratio

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    shape = (batch, 3, ERRORS_SIZE, ERRORS_SIZE)
    real, output = (torch.rand(shape, generator=generator).to(memory_format=torch.channels_last) for _ in range(2))
    real, output = 2 * real - 1, 2.4 * output - 1.2

    def ours() -> None:
        metrics.psnr_from_mse(metrics.mse(output, real))

    def peer() -> None:
        for one, other in zip(output, real, strict=True):
            levels, wanted = ((((image.clamp(-1, 1) + 1) * 127.5).permute(1, 2, 0).numpy()) for image in (one, other))
            mean_squared_error(wanted, levels)
            peak_signal_noise_ratio(wanted, levels, data_range=255)

    for warm_up in (ours, peer):
        warm_up()
    sides = {"ours": lambda _: _repeated(ours), "peer": lambda _: _repeated(peer)}
    costs = in_turns(sides, settings.rounds)
    peer_is = "scikit-image's mean_squared_error and peak_signal_noise_ratio, behind clamping and scaling to 0..255"
    unit = f"CPU time for a batch of {batch} outputs at {ERRORS_SIZE} px"
    return figure(
        f"MSE and PSNR of {batch} outputs", ratios(costs["peer"], costs["ours"]), ERRORS_TARGET, peer_is, unit
    )


def _repeated(function: Callable[[], None]) -> float:
    def run() -> None:
        for _ in range(10):
            function()

    return cpu_seconds(run)


def _together(root: Path, words: list[str], settings: Settings) -> list[Figure]:
    """Four models and identity in one pass with LPIPS, against four evaluations of one model and identity."""
    pack, scorers = open_pack(root), [_scorer(root, words), *(_scorer(root, [word]) for word in words)]
    rows = np.arange(len(pack))[: settings.batches * BATCH]
    batches = np.array_split(rows, settings.batches)

    def run(chosen: list[Scorer]) -> None:
        for scorer in chosen:
            for batch in batches:
                scorer.score(batch)

    run(scorers)
    sides = {
        "ours": lambda _: cpu_seconds(run, scorers[:1]),
        "peer": lambda _: cpu_seconds(run, scorers[1:]),
    }
    costs = in_turns(sides, settings.rounds)
    peer_is = "the four evaluated one by one, each beside identity"
    unit = f"CPU time for {len(rows)} images at {settings.size} px with LPIPS, models of width {settings.width:g}"
    note = "LPIPS with a random backbone; three of the four have their encoder in common"
    return [figure("four models together", ratios(costs["peer"], costs["ours"]), TOGETHER_TARGET, peer_is, unit, note)]


def _scorer(root: Path, words: list[str]) -> Scorer:
    scorer = Scorer(root, score.entries(words), lpips=False, peaks=False, device=torch.device("cpu"))
    scorer.perceptual = perceptual.Perceptual(pretrained=False)
    return scorer


def _actors(pack: Pack, words: list[str], settings: Settings, folder: Path, say: Say) -> Figure:
    """The speed-up from one actor to two, over that from one independent process to two."""
    found = score.entries(words)
    rows = np.resize(np.arange(len(pack)), ACTORS_TIMES * settings.batches * BATCH)
    session.connect(say)
    with new_process() as one, new_process() as other:
        for process in (one, other):
            process.submit(_score_alone, pack.root, tuple(words), rows[:BATCH]).result()

        def by_processes(*processes: Executor) -> float:
            parts = zip(processes, np.array_split(rows, len(processes)), strict=True)

            def run() -> None:
                waiting = [process.submit(_score_alone, pack.root, tuple(words), part) for process, part in parts]
                for future in waiting:
                    future.result()

            return seconds(run)

        def by_actors(count: int) -> float:
            with TemporaryDirectory(dir=folder) as place:
                shards = Shards(Path(place), {}, len(rows), len(found) * len(measures.NAMES), BATCH)
                with scoring.open_pool(Scorer, pack, found, count, say, False, False) as pool:
                    pool.map([("score", [rows[:BATCH]])] * count, lambda _, values: None)
                    return seconds(scoring.fill, shards, pool, rows, count, lambda _: None)

        sides: dict[str, Side] = {
            "one actor": lambda _: by_actors(1),
            "two actors": lambda _: by_actors(2),
            "one process": lambda _: by_processes(one),
            "two processes": lambda _: by_processes(one, other),
        }
        costs = in_turns(sides, settings.rounds)
    ours = ratios(costs["one actor"], costs["two actors"])
    peer = ratios(costs["one process"], costs["two processes"])
    models = f"four models of width {settings.width:g}"
    unit = f"speed-up from one to two, {len(rows)} images at {settings.size} px by {models}, one thread each"
    return figure("two actors", ratios(ours, peer), ACTORS_TARGET, "two processes without a pool", unit)


def _score_alone(root: Path, words: tuple[str, ...], rows: np.ndarray) -> None:
    scorer = _scorer_alone(root, words)
    for start in range(0, len(rows), BATCH):
        scorer.score(rows[start : start + BATCH])


@cache
def _scorer_alone(root: Path, words: tuple[str, ...]) -> Scorer:
    return Scorer(root, score.entries(words), lpips=False, peaks=False, device=torch.device("cpu"))
