"""``nrh demo``: the whole system once, on embedded sample data, on two CPU cores in a few minutes."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from nrh_dist import config as configuration
from nrh_dist.data.layouts import Source, index
from nrh_dist.data.pack import write_pack
from nrh_dist.data.synthetic import ensure_sample
from nrh_dist.engine import rundir, select
from nrh_dist.engine.dist import Place
from nrh_dist.engine.progress import Say, duration
from nrh_dist.engine.run import find_pack, run
from nrh_dist.errors import UserError
from nrh_dist.launch import session
from nrh_dist.launch.evaluate import Options, evaluate
from nrh_dist.launch.train import train
from nrh_dist.report.html import write as write_report
from nrh_dist.schema import Config
from nrh_dist.workflows import coco_exp
from nrh_dist.workflows.sweep import given, sweep

SIZE = 64
COMPOSITES = 96  # of the COCO-Exp test set
PRETRAINING = {"equivariance": 2, "thresholds": 2}  # epochs
EPOCHS = 9  # of each final training
MARK = ".nrh-demo"
STEPS = 8


def run_demo(out: Path, say: Say) -> Path:
    """Make everything under ``out`` and return the report's page. A demo that was stopped continues.

    ``UserError`` if ``out`` holds something else.
    """
    if out.exists() and not (out / MARK).exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is no demo: choose another --out")
    space = given("demo.yaml")
    if session.is_local():
        session.require(2, 0, "the demo's two workers", say)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()
    started = time.monotonic()
    step = _announcer(say)

    step("sample data: procedural scenes in COCO and iHarmony4 layout")
    sample = out / "sample"
    ensure_sample(sample, say)

    step("pack: every image decoded and resized once")
    pack = write_pack(index(Source(sample / "iharmony4")), out / "pack", SIZE, None, say).root

    step("COCO-Exp: the luminance of each object matched to another of its category")
    coco = sample / "coco"
    annotations = coco / "annotations" / "instances_val2017.json"
    coco_exp.make(coco / "val2017", annotations, out / "coco-exp", COMPOSITES, seed=0, say=say)

    step("pre-training of the perceptual detector, in this process: exposure equivariance, then human thresholds")
    common = ["preset=tiny", f"data.size={SIZE}", f"data.pack={pack}", f"run.root={out / 'runs'}", "optim.lr=0.002"]
    detector = _pretrain(common, say)

    step("sweep: fusion width, freezing policy and learning rate of ptc_att_dih, six trials with early stopping")
    words = [f"data.pack={pack}", f"run.root={out}", "run.name=sweep", f"model.detector_weights={detector}"]
    found = sweep(space, words, resume=(out / "sweep" / "sweep.json").exists(), say=say)

    step("training: the best of the sweep with two DDP workers, then dih_nm and ptc_dih as briefly in this process")
    words = [*common, f"train.epochs={EPOCHS}"]
    ptc_dih = ["model.name=ptc_dih", f"model.detector_weights={detector}", "run.name=ptc_dih"]
    runs = [
        train(configuration.load(None, [*words, *_best_words(found), "run.name=ptc_att_dih", "scale.workers=2"]), say),
        _train_here(configuration.load(None, [*words, "model.name=dih_nm", "run.name=dih_nm"]), say),
        _train_here(configuration.load(None, [*words, *ptc_dih]), say),
    ]

    step("evaluation of identity and the three on COCO-Exp with two actors")
    evaluation = evaluate(list(map(str, runs)), out / "coco-exp", out / "evaluation", Options(actors=2), say)

    step("report")
    page = write_report([evaluation, found], out / "report", None)
    say(f"done in {duration(time.monotonic() - started)}: open {page}")
    return page


def _announcer(say: Say) -> Callable[[str], None]:
    count = 0

    def step(text: str) -> None:
        nonlocal count
        count += 1
        say(f"\n[{count}/{STEPS}] {text}")

    return step


def _pretrain(common: Sequence[str], say: Say) -> Path:
    """Both stages of the detector; returns the run folder of the second."""
    folder: Path | None = None
    for stage, epochs in PRETRAINING.items():
        words = [*common, "model.name=ptc", f"stage={stage}", f"run.name=ptc-{stage}", f"train.epochs={epochs}"]
        if folder:
            words.append(f"model.detector_weights={folder}")
        folder = _train_here(configuration.load(None, words), say)
    assert folder is not None
    return folder


def _train_here(config: Config, say: Say) -> Path:
    """Train without Ray, which saves its start; two workers would give the same, to rounding."""
    with rundir.claimed(config) as folder:
        if not rundir.is_finished(folder, config):
            say(f"training {config.model.name} into {folder}")
            run(config, find_pack(config, say), Place(), lambda _: None, say)
    return folder


def _best_words(sweep: Path) -> list[str]:
    """The model and optimiser settings of the sweep's best trial."""
    best = select.read_best(sweep)
    assert best is not None
    trial: Any = OmegaConf.load(best["checkpoint"].parents[1] / rundir.CONFIG)
    words = [f"model.{key}={value}" for key, value in trial.model.items() if value is not None]
    return [*words, f"optim.lr={trial.optim.lr}"]
