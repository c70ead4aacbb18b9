"""A sweep whose trials have two workers each: processes beside the trial's own, against a TorchTrainer for each.

Both sides are ``nrh tune`` on CPUs in a process and a Ray of its own, in turns, with the same space file. The trials
are short, so that what is compared is how long the workers of a trial take to come and go.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from nrh_dist.engine.progress import Say
from nrh_dist.workflows import command
from nrh_dist.workflows.measure import Figure, figure, in_turns, ratios, seconds
from nrh_dist.workflows.sample import sample_pack

BESIDE = ("-m", "nrh_dist")
# As where no machine has room for all workers of a trial.
ON_RAY_TRAIN = (
    "-c",
    "from nrh_dist import cli; from nrh_dist.launch import session\n"
    "session.one_machine_has = lambda *_: False; cli.main()",
)
WORKERS = 2
SPACE = """\
metric: val/mse
search: grid
scheduler: {{none: {{max_epochs: {epochs}}}}}
base: {{preset: tiny, model.name: dih_nm, model.width: 0.25, scale.workers: {workers}}}
space:
  optim.lr: {{choice: {rates}}}
"""


@dataclass(frozen=True)
class Settings:
    """``pairs`` of sweeps of ``trials`` trials, of ``epochs`` epochs each."""

    size: int = 64
    epochs: int = 4
    trials: int = 3
    pairs: int = 3


def bench(say: Say, settings: Settings | None = None) -> list[Figure]:
    """The figure. ``UserError`` with the last line of a sweep that failed."""
    settings = settings or Settings()
    with TemporaryDirectory(prefix="nrh-bench-") as temporary:
        folder = Path(temporary)
        pack = sample_pack(folder, settings.size, say)
        space = folder / "space.yaml"
        rates = [0.001 * (1 + number) for number in range(settings.trials)]
        space.write_text(SPACE.format(epochs=settings.epochs, workers=WORKERS, rates=rates))
        words = [str(space), f"data.pack={pack.root}", f"run.root={folder / 'runs'}"]

        def cost(program: tuple[str, ...], name: str) -> float:
            say(f"trials: {name} of {settings.pairs} pairs")
            return seconds(command.run, [sys.executable, *program, "tune", *words, f"run.name={name}"], folder)

        costs = in_turns(
            {
                "ours": lambda number: cost(BESIDE, f"beside-{number + 1}"),
                "peer": lambda number: cost(ON_RAY_TRAIN, f"ray-train-{number + 1}"),
            },
            settings.pairs,
        )
    return [
        figure(
            f"{WORKERS} workers of a trial as processes beside it",
            ratios(costs["peer"], costs["ours"]),
            None,
            "a TorchTrainer for each trial",
            f"seconds of a sweep of {settings.trials} trials of {settings.epochs} short epochs, one at a time",
        )
    ]
