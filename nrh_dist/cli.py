"""The command line: one verb a function, each parses its words, loads the configuration and calls one function."""

import io
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from nrh_dist import config as configuration
from nrh_dist.errors import UserError
from nrh_dist.location import is_remote

app = typer.Typer(
    name="nrh",
    help="Train, search, judge and use image harmonisation models that need no mask.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"max_content_width": 120},
)
data = typer.Typer(help="Make, check and pack data.", rich_markup_mode=None)
app.add_typer(data, name="data")
track = typer.Typer(help="Weights & Biases: evaluations, workspaces, what is still to be sent.", rich_markup_mode=None)
app.add_typer(track, name="track")

Words = Annotated[
    list[str] | None, typer.Argument(metavar="[key=value ...]", help="Dotted config keys, as in optim.lr=0.001")
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="YAML file of config keys; the key=value words beat it")
]


def say(line: str) -> None:
    """One line to the terminal, at once."""
    print(line, flush=True)


@app.command(epilog="Example: nrh doctor --cluster auto --storage s3://bucket/nrh")
def doctor(
    cluster: Annotated[str | None, typer.Option(help="HOST:PORT of a Ray, or auto: look at its machines")] = None,
    storage: Annotated[str, typer.Option(envvar="NRH_STORAGE", help="Folder or URI that this, or all, must see")] = "",
) -> None:
    """Check environment, GPUs, Ray, weights, cache, disk and auth, and say what to do about each problem."""
    from nrh_dist.workflows import doctor, doctor_cluster

    if not (doctor_cluster.examine(cluster, storage, say) if cluster else doctor.examine(say, storage)):
        raise typer.Exit(1)


@app.command(epilog="Example: nrh demo --out demo")
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for everything that the demo makes")] = Path("demo"),
) -> None:
    """Everything once, on embedded sample data: data, pre-training, sweep, training, evaluation, report."""
    from nrh_dist.workflows.demo import run_demo

    run_demo(out, say)


@data.command(epilog="Example: nrh data sample sample")
def sample(out: Path, seed: Annotated[int, typer.Option(help="Another seed, other scenes")] = 0) -> None:
    """Write procedural sample data: OUT/coco and OUT/iharmony4."""
    from nrh_dist.data.synthetic import write_sample

    write_sample(out, seed=seed, say=say)


Annotations = Annotated[Path | None, typer.Option(help="COCO instances JSON, where ROOT is a folder of its photos")]


@data.command(epilog="Example: nrh data verify sample/iharmony4")
def verify(root: Path, annotations: Annotations = None) -> None:
    """Check every file of a data folder; one line for each bad one, exit code 1 if there is any."""
    from nrh_dist.data.layouts import Source
    from nrh_dist.data.verify import report

    if not report(Source(root, annotations), say):
        raise typer.Exit(1)


@data.command(epilog="Example: nrh data pack sample/iharmony4 packs/sample-64 --size 64")
def pack(
    root: Path,
    out: Path,
    size: Annotated[int, typer.Option(help="Side of the square images in pixels")] = 256,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one a CPU")] = None,
    annotations: Annotations = None,
    skip_bad: Annotated[int, typer.Option(min=0, help="Leave out the samples of up to so many bad files")] = 0,
) -> None:
    """Decode and resize a data folder once, into raw memory-mapped arrays."""
    from nrh_dist.data.layouts import Source
    from nrh_dist.workflows import pack

    pack.pack(Source(root, annotations), out, size, workers, say, skip_bad)


@data.command(
    "coco-exp",
    epilog="Example: nrh data coco-exp --images train2017 --annotations instances_train2017.json --out coco-exp",
)
def coco_exp(
    images: Annotated[Path, typer.Option(help="Folder of the COCO photos")],
    annotations: Annotated[Path, typer.Option(help="COCO instances JSON")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Data folder to write (iHarmony4 layout)")],
    count: Annotated[int, typer.Option(min=1, help="How many composites")] = 1000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    method: Annotated[
        Literal["meanstd", "hist"], typer.Option(help="Mean and deviation (Reinhard), or histogram")
    ] = "meanstd",
    channels: Annotated[Literal["l", "lab"], typer.Option(help="Luminance only, or all of CIE Lab")] = "l",
    format: Annotated[Literal["jpeg", "png"], typer.Option(help="JPEG quality 95 4:4:4, or exact PNG")] = "jpeg",
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Which list the composites go into")] = "test",
    val_fraction: Annotated[float, typer.Option(help="train, val: the share of the photos that val is made of")] = 0.0,
    workers: Annotated[int, typer.Option(min=1, help="Ray workers; the bytes do not depend on it")] = 1,
) -> None:
    """Make COCO-Exp composites: the luminance of an object matched to another of its category."""
    from nrh_dist.workflows.coco_exp import make

    make(images, annotations, out, count, seed, method, channels, format, split, workers, say, val_fraction)


@app.command(epilog="Example: nrh pretrain stage=equivariance preset=tiny data.root=sample/iharmony4")
def pretrain(words: Words = None, config: ConfigFile = None) -> None:
    """Train the perceptual detector: stage=equivariance first, then stage=thresholds from its checkpoint."""
    from nrh_dist.launch.train import train

    words = words or []
    if configuration.stage_of(config, words) == "harmonisation":
        raise UserError("which stage? nrh pretrain stage=equivariance, then nrh pretrain stage=thresholds")
    train(configuration.load(config, ["model.name=ptc", *words]), say)


@app.command(
    "train", epilog="Example: nrh train preset=tiny model.name=ptc_dih data.root=sample/iharmony4 scale.workers=2"
)
def train_verb(words: Words = None, config: ConfigFile = None) -> None:
    """Train a harmoniser; the same command continues an interrupted run."""
    from nrh_dist.launch.train import train

    train(configuration.load(config, words or []), say)


@app.command("tune", epilog="Example: nrh tune search_spaces/demo.yaml data.root=sample/iharmony4")
def tune_verb(
    space: Path,
    words: Words = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted sweep")] = False,
) -> None:
    """Search a space of configurations with Ray Tune."""
    if dry_run:
        from nrh_dist.workflows.plan import describe

        describe(space, words or [], say)
    else:
        from nrh_dist.workflows.sweep import sweep

        sweep(space, words or [], resume, say)


@app.command(
    "evaluate", epilog="Example: nrh evaluate runs/my-run identity --data coco-exp --actors 2 --out evaluation"
)
def evaluate_verb(
    checkpoints: Annotated[
        list[str], typer.Argument(metavar="CHECKPOINT...", help="Run, sweep or checkpoint folders, or identity")
    ],
    data: Annotated[str, typer.Option(help="Data folder or pack, or s3://... of a pack")],
    out: Annotated[
        str, typer.Option("--out", "-o", help="Folder or s3://... for per_image.csv, summary.json and strips")
    ],
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Which list is scored")] = "test",
    actors: Annotated[int, typer.Option(min=1, help="Scoring actors; the files do not depend on it")] = 1,
    annotations: Annotated[Path | None, typer.Option(help="COCO instances JSON, where --data are its photos")] = None,
    thresholds: Annotated[Path | None, typer.Option(help="Detectors: CSV of human thresholds")] = None,
    psnr_peaks: Annotated[
        bool, typer.Option("--psnr-peaks", help="Columns with PSNR by the conventions of DoveNet and iSSAM, too")
    ] = False,
    paste_background: Annotated[
        bool, typer.Option("--paste-background", help="dih_m also with the input's background pasted back")
    ] = False,
) -> None:
    """Score harmonisers, or detectors, on a data folder with a pool of actors; the same command continues."""
    from nrh_dist.launch.evaluate import Options
    from nrh_dist.workflows.evaluate import evaluate

    evaluate(checkpoints, data, out, Options(split, actors, annotations, thresholds, psnr_peaks, paste_background), say)


@app.command(epilog="Example: nrh best runs evaluation --metric mse --pareto --export chosen")
def best(
    folders: Annotated[
        list[str],
        typer.Argument(metavar="FOLDER...", help="Runs, sweeps, evaluations, or folders or s3://... of them"),
    ],
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="val/mse or another of metrics.jsonl, mse or HCOCO/mse of an evaluation, cost/parameters, cost/gflop, "
            "cost/latency_ms (measured here and now); given again: decides ties, or with --pareto is one more objective"
        ),
    ] = None,
    pareto: Annotated[
        bool, typer.Option("--pareto", help="Only those that none beats in all metrics; costs join where none is given")
    ] = False,
    export: Annotated[
        Path | None, typer.Option(help="New folder for the weights, the configuration and a model card")
    ] = None,
) -> None:
    """Name the best checkpoint below folders of runs, sweeps and evaluations, and why; export it."""
    from nrh_dist.engine import fetched
    from nrh_dist.engine.choose import best

    places = [fetched.results(word, say) if is_remote(word) else Path(word) for word in folders]
    best(places, metric or [], pareto, export, say)


@track.command("evaluation", epilog="Example: nrh track evaluation evaluation track.wandb=online")
def track_evaluation(evaluation: Path, words: Words = None) -> None:
    """Make an evaluation a W&B run: its numbers, its tables, and links to the checkpoints that were scored."""
    from nrh_dist.engine import track_evaluation

    track_evaluation.track(evaluation, configuration.load(None, words or []), say)


@track.command("sync", epilog="Example: nrh track sync runs")
def track_sync(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Runs, sweeps, evaluations, or folders of them")
    ],
) -> None:
    """Send to W&B what it does not have yet; the same command again sends nothing twice."""
    from nrh_dist.engine import track_sync

    track_sync.sync(folders, say)


@track.command("workspace", epilog="Example: nrh track workspace me/nrh_dist --sweep runs/demo")
def track_workspace(
    projects: Annotated[list[str], typer.Argument(metavar="PROJECT...", help="[ENTITY/]PROJECT of W&B")],
    sweep: Annotated[Path | None, typer.Option(help="Sweep folder, whose searched keys are shown")] = None,
) -> None:
    """Make a W&B workspace of the panels that matter: val/mse by trial, searched keys, importance, sizes, samples."""
    from nrh_dist.engine import track_workspace

    for project in projects:
        track_workspace.write(project, sweep, say)


@app.command("report", epilog="Example: nrh report evaluation --out report")
def report_verb(
    evaluations: Annotated[
        list[Path], typer.Argument(metavar="EVALUATION...", help="Folders of nrh evaluate, or of sweeps")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the page")],
    against: Annotated[Path | None, typer.Option(help="Another evaluation to compare with")] = None,
) -> None:
    """Write tables, figures and one offline HTML page about evaluations and sweeps."""
    from nrh_dist.report.html import write

    say(f"open {write(evaluations, out, against)}")


@app.command("leaderboard", epilog="Example: nrh leaderboard reports --add evaluation --name gated-64")
def leaderboard_verb(
    folder: Annotated[Path, typer.Argument(help="Folder of the reports: results/*.json and studies (*.md)")],
    add: Annotated[Path | None, typer.Option(help="Evaluation of harmonisers to keep as a result first")] = None,
    name: Annotated[str | None, typer.Option(help="--add: name of the result; default: the evaluation's")] = None,
    note: Annotated[str, typer.Option(help="--add: what a reader must know of the data or the training")] = "",
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit code 1 if it is not up to date")] = False,
) -> None:
    """Write README.md of a folder of reports: ours beside what was published, and an index of the studies."""
    from nrh_dist.workflows import leaderboard

    if add and check:
        raise UserError("--add writes and --check does not: give one of them")
    if (name or note) and not add:
        raise UserError("--name and --note are of a result: give them with --add EVALUATION")
    if add:
        say(f"wrote {leaderboard.add(folder, add, name, note)}")
    page = leaderboard.refresh(folder, check)
    say(f"{page} is up to date" if check else f"wrote {page}")


Checkpoint = Annotated[
    str | None,
    typer.Option(help="Run, sweep, checkpoint or exported folder, or .onnx file; default: what was chosen last"),
]


@app.command("study", epilog="Example: nrh study --coco COCO --budget 600 --out study")
def study_verb(
    words: Words = None,
    coco: Annotated[
        Path | None, typer.Option(help="train2017/, val2017/ and their instances JSON; default: sample scenes")
    ] = None,
    photos: Annotated[
        list[Path] | None, typer.Option(help="More to train from: a folder of images/ and instances.json; repeatable")
    ] = None,
    budget: Annotated[
        float | None, typer.Option(min=1, help="Minutes; default: the paper's scale, whatever it takes")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for everything; the same command goes on there")
    ] = Path("study"),
) -> None:
    """Compare all models with doing nothing, from data to report, as an experiment with seeds and intervals."""
    from nrh_dist.workflows.study.data import Photos
    from nrh_dist.workflows.study.study import study

    study(out, Photos(coco, tuple(photos or ())), budget, words or [], say)


@app.command("harmonise", epilog="Example: nrh harmonise photos -o harmonised --checkpoint model.onnx --compare")
def harmonise_verb(
    photos: Annotated[
        list[Path], typer.Argument(metavar="PHOTO_OR_FOLDER...", help="JPEG, PNG, TIFF, WebP, or folders of them")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results; names and sub-folders stay")],
    checkpoint: Checkpoint = None,
    strength: Annotated[float, typer.Option(min=0, max=1, help="How much of the change is made")] = 1.0,
    mask: Annotated[
        Path | None, typer.Option(help="Where a photo may change: a grey image, or a folder with NAME.png for each")
    ] = None,
    save_mask: Annotated[bool, typer.Option("--save-mask", help="Write what was detected to NAME-mask.png")] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Write before, after and what was found to NAME-compare.jpg")
    ] = False,
    strip: Annotated[bool, typer.Option("--strip", help="Leave out EXIF, profile and the like")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there")] = False,
    skip: Annotated[bool, typer.Option("--skip-existing", help="Pass over photos whose results are there")] = False,
) -> None:
    """Make pasted objects match their photos, at full size, without a mask; exit code 1 if one could not be used."""
    from nrh_dist.workflows.harmonise import Wishes, harmonise

    if force and skip:
        raise UserError("--force replaces what is there, --skip-existing keeps it: give one of them")
    wishes = Wishes(strength, mask, save_mask, compare, strip, force, skip)
    if not harmonise(photos, out, checkpoint, wishes, say):
        raise typer.Exit(1)


@app.command("calibrate", epilog="Example: nrh calibrate runs/gated -o gated-calibrated")
def calibrate_verb(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="Run, sweep or checkpoint folder of gated")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder: weights, configuration and model card")],
    data: Annotated[str, typer.Option(help="Folder or pack whose validation photos decide; default: its own")] = "",
    most_worse: Annotated[
        float, typer.Option(help="Most of the images that may become worse by more than 1 MSE (upper 95 % bound)")
    ] = 0.05,
) -> None:
    """Choose how reluctant a gated model has to be, so that it rarely makes a photo worse."""
    from nrh_dist.engine import chosen
    from nrh_dist.workflows.calibrate import calibrate

    chosen.note(calibrate(checkpoint, out, say, data, most_worse))


@app.command("export", epilog="Example: nrh export runs/my-run --format onnx -o model.onnx")
def export_verb(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="Run, sweep or checkpoint folder")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New file NAME.onnx (onnx) or new folder (safetensors)")],
    format: Annotated[
        Literal["onnx", "safetensors"],
        typer.Option(help="One file for use without torch; or weights, configuration and model card"),
    ] = "onnx",
) -> None:
    """Write a checkpoint to give away or to use without torch, and prove that it gives the same output."""
    from nrh_dist.engine import checkpoint as checkpoints
    from nrh_dist.engine import chosen, export, onnx, select

    path = select.resolve(checkpoint)
    made = onnx.export(path, out, say) if format == "onnx" else export.export(path, [], out, say)
    if not checkpoints.is_detector(path):
        chosen.note(made)


@app.command("serve", epilog="Example: nrh serve --checkpoint model.onnx")
def serve_verb(
    checkpoint: Checkpoint = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free")] = 8734,
) -> None:
    """Open a page on this machine alone, where a photo is dropped and comes back harmonised."""
    from nrh_dist.workflows.serve import serve

    serve(checkpoint, port, say)


@app.command(epilog="Example: nrh bench loader --data iharmony4")
def bench(
    name: Annotated[str | None, typer.Argument(help="What to measure, or all; without it, a list")] = None,
    data: Annotated[Path | None, typer.Option(help="loader: iHarmony4 folder; default: sample data")] = None,
    images: Annotated[Path | None, typer.Option(help="generate: COCO photos; default: sample data")] = None,
    annotations: Annotated[Path | None, typer.Option(help="generate: their COCO instances JSON")] = None,
    count: Annotated[int, typer.Option(min=20, help="generate: how many pairs")] = 1000,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="JSON to write; default: [reports/]bench-<machine>.json")
    ] = None,
) -> None:
    """Measure the speed of the parts, each as a ratio against a peer that runs in turns with it."""
    from nrh_dist.workflows.bench import Input, run

    run(name, Input(images, annotations, count, data), out, say)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of ``nrh``: one clear line and exit code 1 for whatever a user can mend."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name may be no text
            stream.reconfigure(errors="backslashreplace")
    try:
        status = app(args=(sys.argv[1:] if arguments is None else arguments) or ["--help"], standalone_mode=False)
    except UserError as error:
        _stop(str(error))
    except typer.TyperException as error:
        _stop(error.format_message())
    except BrokenPipeError:  # who read its lines has gone, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        what = " ".join(str(error.strerror or error).split())
        _stop(f"{f'{error.filename}: ' if error.filename else ''}{what}; mend that and give the same command again")
    except (KeyboardInterrupt, typer.Abort):
        _stop("interrupted: the same command goes on where it stopped (nrh tune: with --resume)")
    sys.exit(status if isinstance(status, int) else 0)


def _stop(message: str) -> None:
    print(f"nrh: {message}", file=sys.stderr)
    sys.exit(1)
