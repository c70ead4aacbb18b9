"""The study from photos to report; every step is kept, and the same command goes on where it was stopped.

<out>/study.json     what is compared at what scale, what was cut and why, data, learning rates, commands
<out>/data, packs, runs, logs, calibrated, evaluations, risk.csv, report
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from nrh_dist import config as configuration
from nrh_dist.data.layouts import Source, index
from nrh_dist.data.pack import cached_pack, write_pack
from nrh_dist.engine import checkpoint, provenance, rundir, select
from nrh_dist.engine.dist import own_device
from nrh_dist.engine.files import write_json, write_text
from nrh_dist.engine.lock import locked
from nrh_dist.engine.progress import Progress, Say
from nrh_dist.engine.scan import scan
from nrh_dist.errors import UserError
from nrh_dist.launch.evaluate import Options, evaluate
from nrh_dist.launch.space import FIXED
from nrh_dist.report.statistics import is_worse
from nrh_dist.report.study.collect import SCHEMA
from nrh_dist.report.study.page import write as write_report
from nrh_dist.workflows.calibrate import THRESHOLDS, calibrate, gated
from nrh_dist.workflows.study import data
from nrh_dist.workflows.study import plan as planning
from nrh_dist.workflows.study.data import Photos
from nrh_dist.workflows.study.plan import Costs, Plan, Scale
from nrh_dist.workflows.study.recipes import (
    ALL_TRANSFORMS,
    DETECTOR,
    GATED,
    RATES,
    SWEPT,
    SYSTEMS,
    Recipe,
)
from nrh_dist.workflows.study.runs import Run, Trainer, slots
from nrh_dist.workflows.sweep import given, sweep

CALIBRATED = {"gated": "gated_calibrated", SWEPT: "gated_swept_calibrated"}
TESTED = 1500  # composites of each test, at most
GENERATED, GENERATING = 35.0, 0.2  # composites a second, at least, and the part of a budget that they may take
RISK_THRESHOLDS = THRESHOLDS[::2]  # enough for a curve
RISK = ("set", "model", "seed", "threshold", "opened", "worse1", "mse", "identity_mse", "images")


def study(
    out: Path, photos: Photos, budget: float | None, words: Sequence[str], say: Say, wanted: Plan | None = None
) -> Path:
    """Make the whole study below ``out`` and return the report's page.

    ``budget``: minutes; None: the paper's scale, whatever it takes. ``words``: configuration for all trainings; epochs,
    size and width among them are not for the plan to choose.
    ``wanted``: a plan, instead of one that is made from measured steps. ``UserError``: ``out`` holds another study.
    """
    planning.pinned(words)
    given("study.yaml")
    data.require(photos)
    with locked(out):
        made = Study(out, photos, words, say)
        made.prepare(budget, wanted)
        made.train()
        made.judge()
    page = write_report(out, out / "report")
    say(f"open {page}")
    return page


class Study:
    """One study and its folder."""

    def __init__(self, out: Path, photos: Photos, words: Sequence[str], say: Say) -> None:
        self.out, self.photos, self.words, self.say = out, photos, tuple(words), say
        self.file = out / "study.json"
        self.content: dict[str, Any] = {}
        self.plan = Plan()

    def prepare(self, budget: float | None, wanted: Plan | None) -> None:
        """Data, plan and pack. What an earlier call planned stays."""
        self.content = self._begun(budget)
        is_planned = "plan" in self.content
        plan = _plan_of(self.content["plan"]) if is_planned else wanted or self._whole(budget)
        tested = min(TESTED, plan.composites)
        self.content["data"] = data.make(self.photos, self.out / "data", plan.composites, tested, self.say)
        if not is_planned and budget is not None and not wanted:
            plan = self._planned(plan, 60 * budget)
        self.plan = plan
        text = f"plan: {plan.scale.size} px, width {plan.scale.width:g}, {plan.epochs} epochs, {plan.seeds} seeds"
        self.say(text + (f"; cut: {'; '.join(plan.cuts)}" if plan.cuts else ""))
        if is_planned and budget != (before := self.content["budget_minutes"]):
            self.say(f"it was planned with --budget {before}, and stays so; another --out is planned anew")
        samples, folder = index(Source(self.out / "data" / data.TRAIN)), self.out / "packs" / f"train-{plan.scale.size}"
        pack = write_pack(samples, folder, plan.scale.size, None, self.say).root
        own = ("data.val_fraction=0", "train.keep_checkpoints=1", "track.wandb=disabled")
        self.common = [*plan.scale.words, f"data.pack={pack}", *own, *self.words]
        self.trainer = Trainer(self.out, self.common, self.say)
        self.content |= {"plan": asdict(plan), "common": self.common}
        self._save()

    def _begun(self, budget: float | None) -> dict[str, Any]:
        """``study.json`` as it was left, or what stands in it first. ``UserError`` where it is of another study."""
        asked = {"photos": data.facts(self.photos), "words": list(self.words)}
        code = provenance.code()
        if not self.file.exists():
            begun = {"schema": SCHEMA, "asked": asked, "command": provenance.command(), "version": code["version"]}
            begun |= {"began": provenance.now(), "budget_minutes": budget, "out": self.out.name}
            return begun | {"commits": [code["commit"]]}
        content: dict[str, Any] = json.loads(self.file.read_text())
        if content.get("schema") != SCHEMA or content["asked"] != asked:
            raise UserError(f"{self.out} holds another study ({content.get('asked')}): choose another --out")
        # Whoever goes on after an update has numbers of both.
        return content | {"commits": [*dict.fromkeys([*content["commits"], code["commit"]])]}

    def _whole(self, budget: float | None) -> Plan:
        """The plan before anything is cut, but for the composites that a short budget has no time to make."""
        epochs, scale = planning.pinned(self.words)
        plan = Plan(scale=scale or planning.SCALES[-1], epochs=epochs or planning.MOST_EPOCHS)
        if budget is None:
            return plan
        return replace(plan, composites=min(plan.composites, int(GENERATED * 60 * budget * GENERATING)))

    def train(self) -> None:
        """Detectors, learning rates, the sweep, and then everything that is compared, seed by seed."""
        tried = self._rate_runs()
        self._detectors([run for one, _, run in tried if not one.detector])
        rates = self._rates(tried)
        best = self._sweep(rates)
        swept = Recipe(SWEPT, tuple(best), "", DETECTOR)
        systems = [*(one for one in SYSTEMS if not one.has_harmoniser_part), swept]
        self.recipes = [*SYSTEMS, swept, *self.plan.controls, *self.plan.ablations]
        self._train_all("systems", systems, rates)
        self._train_all("two-stage", [one for one in SYSTEMS if one.has_harmoniser_part], rates)
        self._train_all("controls", self.plan.controls, rates)
        self._train_all("ablations", self.plan.ablations, rates)
        self.content["runs"] = [
            {"run": f"{one.name}-seed{seed}", "system": one.name, "seed": seed, "words": self._words(one, seed, rates)}
            for one in self.recipes
            for seed in range(self.plan.seeds_of(one))
        ]
        self.content["recipes"] = {one.name: {"differs": one.differs, "words": list(one.words)} for one in self.recipes}
        self._save()

    def judge(self) -> None:
        """Calibrate on val, then score every run once on each test."""
        calibrated = [self._calibrated(name, seed) for name in CALIBRATED for seed in range(self.plan.seeds)]
        self.content["calibrated"] = {path.name: checkpoint.read_meta(path)["calibration"] for path in calibrated}
        folders = [str(self.trainer.path(one["run"])) for one in self.content["runs"]] + [
            str(one) for one in calibrated
        ]
        actors = self.trainer.count
        for name in (*data.TESTS, data.CONTROLS):
            out = self.out / "evaluations" / name
            if not (out / "summary.json").exists():
                evaluate(folders, self.out / "data" / name, out, Options(actors=actors, paste=True), self.say)
        if not (self.out / "risk.csv").exists():
            self._risk()
        self.content["ended"] = provenance.now()
        self._save()

    def _save(self) -> None:
        write_json(self.file, self.content)

    def _planned(self, plan: Plan, seconds: float) -> Plan:
        samples = index(Source(self.out / "data" / data.TRAIN))
        train = [one for one in samples if one.split == "train"]
        images = {
            "train": len(train),
            "val": len(samples) - len(train),
            "objects": len({one.mask for one in train}),
            "test": sum(count for name, count in self.content["data"]["composites"].items() if name.startswith("test")),
        }

        def measure(scale: Scale) -> Costs:
            return planning.measure(scale, len(slots()), images, self.words)

        epochs, scale = planning.pinned(self.words)
        return planning.fit(plan, planning.by_scale(measure, plan, seconds, self.say, scale), seconds, epochs)

    def _detectors(self, beside: Sequence[Run]) -> None:
        """Both stages of each detector, on the photos to train from; its own validation photos are those of all.

        Trainings ``beside`` it, which need none, fill the other devices.
        """
        epochs = f"train.epochs={self.plan.detector_epochs}"
        wanted = {DETECTOR: "[exposure]"}
        if any(one.detector == ALL_TRANSFORMS for one in self.plan.ablations):
            wanted[ALL_TRANSFORMS] = "[exposure,white_balance,saturation,contrast]"
        common = ("model.name=ptc", epochs, "optim.lr=0.001")
        stages = {name: (*common, f"data.transforms={transforms}") for name, transforms in wanted.items()}
        first = [Run(f"{name}-equivariance", (*words, "stage=equivariance")) for name, words in stages.items()]
        self.trainer.train("detector, equivariance", [*first, *beside])
        second = [
            Run(name, (*words, "stage=thresholds", "loss.object_share=0.5", self._weights(f"{name}-equivariance")))
            for name, words in stages.items()
        ]
        self.trainer.train("detector, thresholds", second)

    def _weights(self, name: str, part: str = "detector") -> str:
        return f"model.{part}_weights={self.trainer.path(name)}"

    def _rate_runs(self) -> list[tuple[Recipe, float, Run]]:
        """A short training of each system that learns, at each of ``RATES``."""
        short = f"train.epochs={self.plan.rate_epochs}"
        return [
            (one, rate, Run(f"rate-{one.name}-{rate:g}", (*self._given(one, 0), f"optim.lr={rate}", short), True))
            for one in SYSTEMS
            if not one.has_harmoniser_part
            for rate in RATES
        ]

    def _rates(self, tried: Sequence[tuple[Recipe, float, Run]]) -> dict[str, float]:
        """Each system's rate with the lowest val/mse. ``UserError`` where one has none."""
        values = self.trainer.train("learning rates", [run for _, _, run in tried])
        found: dict[str, dict[float, float]] = {one.name: {} for one, _, _ in tried}
        for one, rate, run in tried:
            if run.name in values:
                found[one.name][rate] = values[run.name]
        if never := [name for name, known in found.items() if not known]:
            raise UserError(f"{never[0]} diverged at every learning rate of {', '.join(map(str, RATES))}")
        rates = {name: min(known, key=lambda rate: known[rate]) for name, known in found.items()}
        shown = {name: {f"{rate:g}": known.get(rate) for rate in RATES} for name, known in found.items()}
        self.content |= {"rates": rates, "rates_tried": shown}
        self._save()
        return rates

    def _sweep(self, rates: dict[str, float]) -> list[str]:
        """The words of the best of ``gated``'s sweep. Without trials, those of the unswept one."""
        if not self.plan.trials:
            return [*GATED, f"optim.lr={rates['gated']}"]
        space: Any = OmegaConf.load(given("study.yaml"))
        space.trials = self.plan.trials
        epochs = self.plan.sweep_epochs
        space.scheduler = {"asha": {"max_epochs": epochs, "grace_epochs": max(1, epochs // 4), "reduction_factor": 3}}
        file = self.out / "sweep.yaml"
        OmegaConf.save(space, file)
        kept = [word for word in self.common if word.partition("=")[0] not in FIXED]  # a sweep has its own
        words = [*kept, self._weights(DETECTOR), f"run.root={self.out}", "run.name=sweep"]
        folder = self.out / "sweep"
        sweep(file, words, (folder / "sweep.json").exists(), self.say)
        best = select.read_best(folder)
        assert best is not None
        trial = configuration.flatten(configuration.load(best["checkpoint"].parents[1] / rundir.CONFIG))
        searched = [*space.base, *space.space]
        return [f"{key}={trial[key]}" for key in dict.fromkeys(map(str, searched))]

    def _train_all(self, what: str, recipes: Sequence[Recipe], rates: dict[str, float]) -> None:
        """One seed after the other, so that what is stopped early has something of everything."""
        pairs = [(seed, one) for one in recipes for seed in range(self.plan.seeds_of(one))]
        pairs.sort(key=lambda pair: pair[0])
        self.trainer.train(what, [Run(f"{one.name}-seed{seed}", self._words(one, seed, rates)) for seed, one in pairs])

    def _words(self, recipe: Recipe, seed: int, rates: dict[str, float]) -> tuple[str, ...]:
        words = (*self._given(recipe, seed), f"train.epochs={self.plan.epochs}", f"seed={seed}")
        return (*words, f"optim.lr={rates[recipe.rate_of]}") if recipe.rate_of in rates else words

    def _given(self, recipe: Recipe, seed: int) -> tuple[str, ...]:
        """A recipe's words, with the checkpoints that it starts from."""
        words = [*recipe.words, "train.best_metric=val/mse"]
        if recipe.detector:
            words.append(self._weights(recipe.detector))
        if recipe.has_harmoniser_part:
            words.append(self._weights(f"dih_m-seed{seed}", "harmoniser"))
        return tuple(words)

    def _calibrated(self, name: str, seed: int) -> Path:
        out = self.out / "calibrated" / f"{CALIBRATED[name]}-seed{seed}"
        if not out.exists():
            calibrate(str(self.trainer.path(f"{name}-seed{seed}")), out, self.say)
        return out

    def _risk(self) -> None:
        """risk.csv: for each threshold of the gates, how often they open and what that does, on both tests."""
        rows = [row for test in data.TESTS for row in self._risk_rows(test)]
        write_text(self.out / "risk.csv", "".join(f"{','.join(map(str, row))}\n" for row in [RISK, *rows]))

    def _risk_rows(self, test: str) -> list[list[object]]:
        pack = cached_pack(Source(self.out / "data" / test), self.plan.scale.size, self.say)
        chosen, device = pack.rows("test"), own_device()
        gates = [(name, seed) for name in CALIBRATED for seed in range(self.plan.seeds)]
        self.say(f"{test}: scanning {len(RISK_THRESHOLDS)} thresholds of {len(gates)} gates")
        progress = Progress(len(gates) * len(chosen), self.say)
        rows: list[list[object]] = []
        for name, seed in gates:
            model = gated(select.resolve(self.trainer.path(f"{name}-seed{seed}"))).to(device)
            found = scan(model, pack, chosen, RISK_THRESHOLDS, (1.0,), device, lambda n: progress.add(n, "scanned"))
            for place, threshold in enumerate(found.thresholds):
                mse = found.mse[place, 0]
                worse = is_worse(mse, found.identity_mse).mean()
                means = (found.opened[place].mean(), worse, mse.mean(), found.identity_mse.mean())
                rows.append([test, name, seed, threshold, *(f"{value:.6f}" for value in means), len(chosen)])
        return rows


def _plan_of(values: dict[str, Any]) -> Plan:
    lists = {key: tuple(values[key]) for key in ("cuts", "skipped")}
    return Plan(**{**values, **lists, "scale": Scale(**values["scale"])})
