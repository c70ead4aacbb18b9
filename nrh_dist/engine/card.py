"""The model card of an exported checkpoint: what it is, what it learned from, how good it is, its limits and terms."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nrh_dist import __version__
from nrh_dist.data.rows import RESIZE
from nrh_dist.engine.cost import GFLOP, PARAMETERS, costs_of
from nrh_dist.schema import DETECTOR_MODELS

Summary = Mapping[str, Any]

WHAT = {
    "dih_m": "Deep Image Harmonization (Tsai et al. 2017) without its segmentation branch. It is given the mask of the "
    "object whose colours do not fit.",
    "dih_nm": "Deep Image Harmonization (Tsai et al. 2017) without its segmentation branch and without a mask.",
    "ptc": "The perceptual threshold classifier (Dolhasz et al. 2020): for every pixel, whether people would see a "
    "negative shift, a positive one, or none.",
    "two_stage": "A detector of shifted objects and a harmoniser trained with masks, one after the other, each as it "
    "was trained by itself (Dolhasz et al. 2022). No mask is needed.",
    "ptc_dih": "PTC-DIH (Dolhasz et al. 2022): a detector predicts the mask for a harmoniser, and both are trained "
    "through the harmonised image. No mask is needed.",
    "ptc_att_dih": "PTC-att-DIH (Dolhasz et al. 2022): the latent features of a detector attend to those of a "
    "harmoniser. No mask is needed.",
    "gated": "A detector opens a gate where an object does not fit, and a harmoniser corrects there; elsewhere the "
    "photo stays as it is, bit for bit. No mask is needed.",
}
TRAINING_PROTOCOL = (
    "On the 0..255 scale, the prediction clamped and not rounded, all pixels and channels; per image, then the mean "
    "over images. PSNR: peak 255, capped at 100 dB. The checkpoint was chosen on these photos: expect a little less."
)
COLUMNS = (("mse", "MSE", 2), ("psnr", "PSNR", 2), ("fmse", "fMSE", 2), ("lpips", "LPIPS", 4))


def card(meta: Mapping[str, Any], data: str, given: Mapping[str, str], scored: Sequence[tuple[Summary, str]]) -> str:
    """The text of README.md, in Markdown.

    ``meta`` is that of the checkpoint; ``data`` the name of what it was trained on; ``given`` names the files of other
    models that it started from, by configuration key. ``scored`` are summaries of evaluations, each with the run that
    the checkpoint is there.
    """
    sections = [
        _what(meta),
        _data(meta, data),
        _metrics(meta, scored),
        *([["## Calibration", "", meta["calibration"]]] if "calibration" in meta else []),
        _limits(meta),
        _licence(meta, given),
        _reproduce(meta, given),
        _use(meta),
    ]
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _what(meta: Mapping[str, Any]) -> list[str]:
    model, size = meta["model"], meta["size"]
    cost = costs_of(model, size)
    return [
        f"# {model['name']} at {size} px",
        "",
        WHAT[model["name"]],
        "",
        f"{cost[PARAMETERS]:,.0f} parameters; {cost[GFLOP]:.3g} GFLOP for an image (a multiply-add is two). "
        f"Epoch {meta['epoch']}, step {meta['step']} of a training by nrh_dist {__version__}; every setting is in "
        "config.yaml.",
    ]


def _data(meta: Mapping[str, Any], data: str) -> list[str]:
    config = meta["config"]
    share = config["data.val_fraction"]
    drawn = f"Of its photos, {100 * share:g} %, drawn by seed {config['seed']}, were kept"
    kept = drawn if share else "The photos of its val list were kept"
    return [
        "## Data",
        "",
        f"Trained on the training list of `{data}`, packed as `{meta['pack']}`: {RESIZE}. {kept} for validation and "
        "not learned from.",
    ]


def _metrics(meta: Mapping[str, Any], scored: Sequence[tuple[Summary, str]]) -> list[str]:
    values = meta["metrics"]
    lines = ["## Metrics", "", "### Validation", ""]
    if "val/mse" in values:
        name = meta["model"]["name"]
        lines += _table(
            ["", "MSE", "PSNR"],
            [
                ["identity (doing nothing)", _number(values.get("val/identity_mse"), 2), ""],
                [name, _number(values["val/mse"], 2), _number(values.get("val/psnr"), 2)],
            ],
        )
        lines += ["", TRAINING_PROTOCOL]
    else:
        shown = {key: value for key, value in values.items() if key.startswith("val/")}
        lines += _table(["", "value"], [[key, _number(value, 4)] for key, value in shown.items()])
    for summary, run in scored:
        lines += ["", *(_of_detector(summary, run) if "detectors" in summary else _of_harmoniser(summary, run))]
    return lines


def _of_harmoniser(summary: Summary, run: str) -> list[str]:
    rows = [
        [row["dataset"], "identity (doing nothing)" if row["run"] == "identity" else row["model"], f"{row['count']:,}"]
        + [_number(row[key], decimals) for key, _, decimals in COLUMNS]
        + [_number(None if row["worse1"] is None else 100 * row["worse1"], 1)]
        for row in summary["models"]
        if row["run"] in ("identity", run)
    ]
    header = ["data set", "", "images", *(title for _, title, _ in COLUMNS), "worse by more than 1, %"]
    protocol = [f"* {key}: {text}" for key, text in summary["protocol"].items()]
    return [_of_data(summary), "", *_table(header, rows), "", *protocol]


def _of_detector(summary: Summary, run: str) -> list[str]:
    (found,) = (one for one in summary["detectors"] if one["run"] == run)
    rows = [[row["sign"], _number(row["error"], 4), _number(row["constant_error"], 4)] for row in found["thresholds"]]
    header = ["sign", "error in stops", "error of a constant"]
    protocol = [f"* {key}: {text}" for key, text in summary["protocol"].items()]
    return [_of_data(summary), "", *_table(header, rows), "", found["verdict"], "", *protocol]


def _of_data(summary: Summary) -> str:
    return f"### The {summary['split']} list of `{Path(summary['data']).name}` at {summary['size']} px"


def _limits(meta: Mapping[str, Any]) -> list[str]:
    size, name = meta["size"], meta["model"]["name"]
    lines = [
        "## Limits",
        "",
        f"* Trained, and to be judged, at {size} x {size} px: photos are stretched to that.",
        "* It knows the kinds of composites that it was trained on, and no others.",
    ]
    if name == "ptc":
        return [*lines, "* People differ in what they notice: its thresholds are of an average observer."]
    lines.append("* It also changes photos that need no change; see the share made worse, where it is given above.")
    if name == "dih_m":
        lines.append("* It needs the object's mask, which a user rarely has.")
    return lines


def _licence(meta: Mapping[str, Any], given: Mapping[str, str]) -> list[str]:
    model, config = meta["model"], meta["config"]
    lines = [
        "## Licence",
        "",
        "The code of nrh_dist is under the MIT licence. The weights were learned from the data above, whose owners' "
        "terms apply to them.",
        "",
    ]
    vgg = "torchvision's VGG16 weights, whose terms follow from ImageNet, on which they were trained"
    if model["name"] not in DETECTOR_MODELS:
        weights = "No weights of others went into it"
    elif "model.detector_weights" in given:
        weights = f"Its detector was trained before, and may have started from {vgg}"
    elif "model.vgg_weights" in given:
        weights = f"Its detector started from {vgg}"
    elif config["model.width"] != 1.0:
        weights = "No weights of others went into it: VGG16's do not fit this width"
    else:
        weights = f"Where torch's cache had them, its detector started from {vgg}"
    return [*lines, f"{weights}."]


def _reproduce(meta: Mapping[str, Any], given: Mapping[str, str]) -> list[str]:
    verb = "train" if meta["stage"] == "harmonisation" else "pretrain"
    words = [f"nrh {verb} --config config.yaml data.root=DATA", *(f"{key}={name}" for key, name in given.items())]
    lines = ["## Make it again", "", "```", " ".join(words), "```"]
    if given:
        lines += ["", f"{', '.join(given.values())}: what this training was given to start from."]
    return lines


def _use(meta: Mapping[str, Any]) -> list[str]:
    size, name = meta["size"], meta["model"]["name"]
    call, returned = "model(image).softmax(dim=1)", "N3hw, 7/8 of the size: negative shift, positive shift, none"
    if name != "ptc":
        mask = "mask" if name == "dih_m" else "None"
        call, returned = f"model(image, {mask}).image.clamp(-1, 1)", f"N3HW in [-1, 1], {size} x {size}"
    needs = " and `mask` N1HW in [0, 1]" if name == "dih_m" else ""
    return [
        "## Use",
        "",
        "```",
        "nrh evaluate THIS_FOLDER --data DATA --out evaluation",
        *(["nrh harmonise PHOTO_OR_FOLDER -o OUT --checkpoint THIS_FOLDER"] if name != "ptc" else []),
        "```",
        "",
        f"With `image` N3HW in [-1, 1], {size} x {size}{needs}:",
        "",
        "```python",
        "from pathlib import Path",
        "from nrh_dist.engine.assemble import trained_model",
        "",
        'model, about = trained_model(Path("THIS_FOLDER"))',
        f"output = {call}  # {returned}",
        "```",
        "",
        "manifest.json holds the sha256 of the other files but this one; a folder that does not agree is refused.",
    ]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


def _number(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:,.{decimals}f}"
