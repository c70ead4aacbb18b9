"""How an evaluation and a page came to be: terms with their descriptions, "not recorded" where nothing says so."""

import shlex
from pathlib import Path

from nrh_dist.report.collect import Evaluation
from nrh_dist.report.detector_collect import DetectorEvaluation
from nrh_dist.report.parts import number
from nrh_dist.report.provenance import Provenance, Training

NOT_RECORDED = "not recorded"


def facts(evaluation: Evaluation | DetectorEvaluation) -> list[tuple[str, str]]:
    """Where, when and at what cost the evaluation was made; empty but for one line without provenance.json."""
    found = evaluation.provenance
    if found is None:
        return [("Command, commit, cost", f"{NOT_RECORDED}, as in evaluations of earlier versions")]
    training = [(f"Training of {run}", _training(one)) for run, one in found.training.items()]
    absent = [one.run for one in evaluation.summary.checkpoints if one.run not in found.training]
    if absent:
        training.append(("Training of others" if training else "Training", f"cost {NOT_RECORDED}: {', '.join(absent)}"))
    return [
        ("Commit", _commit(found)),
        ("Made", f"{found.started or NOT_RECORDED}{_took(found)}"),
        ("Machine", _machine(found)),
        ("Environment", ", ".join(f"{name} {value}" for name, value in found.environment.items()) or NOT_RECORDED),
        ("Cost of the evaluation", _hours(found.gpu_hours, found.cpu_hours)),
        *training,
    ]


def command(evaluation: Evaluation | DetectorEvaluation) -> str:
    """The command that makes the evaluation again; empty where it is not recorded."""
    return evaluation.provenance.command if evaluation.provenance else ""


def report_command(inputs: list[Path], out: Path, against: Path | None) -> str:
    """The command that makes this page again, in the quotes of a shell."""
    words = ["nrh", "report", *map(str, inputs), "--out", str(out)]
    return shlex.join([*words, *(["--against", str(against)] if against else [])])


def _commit(found: Provenance) -> str:
    version = f"nrh_dist {found.version}" if found.version else ""
    return ", ".join(filter(None, [found.commit or f"{NOT_RECORDED}: not run from a git checkout", version]))


def _took(found: Provenance) -> str:
    if found.seconds is None:
        return ""
    speed = f", {number(found.images_per_s, 1)} images/s" if found.images_per_s is not None else ""
    images = f" for {found.images:,} images" if found.images is not None else ""
    return f"; {number(found.seconds, 0)} s{images}{speed}"


def _machine(found: Provenance) -> str:
    actors = f"{found.actors} actor{'s' if found.actors != 1 else ''}" if found.actors is not None else ""
    gpus = f"{found.gpus:g} GPU{'s' if found.gpus != 1 else ''}" if found.gpus is not None else ""
    return ", ".join(filter(None, [found.device, gpus, actors])) or NOT_RECORDED


def _hours(gpu: float | None, cpu: float | None) -> str:
    parts = [f"{number(hours, 3)} {kind} hours" for hours, kind in ((gpu, "GPU"), (cpu, "CPU")) if hours is not None]
    return ", ".join(parts) or NOT_RECORDED


def _training(found: Training) -> str:
    workers = f"{found.workers} worker{'s' if found.workers != 1 else ''}" if found.workers is not None else ""
    hours = f"{number(found.hours, 3)} hours" if found.hours is not None else ""
    kind = {"": "device", "cpu": "CPU"}.get(found.device.lower(), "GPU")
    spent = f"{number(found.device_hours, 3)} {kind} hours" if found.device_hours is not None else ""
    return ", ".join(filter(None, [hours, workers, spent, found.device])) or NOT_RECORDED
