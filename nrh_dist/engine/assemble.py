"""Models from configurations and from checkpoints, with the weights of their parts."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nrh_dist import models
from nrh_dist.engine import checkpoint, select
from nrh_dist.engine.progress import Say
from nrh_dist.errors import UserError
from nrh_dist.models import weights
from nrh_dist.models.ptc import Detector, Encoder, Equivariance
from nrh_dist.schema import DETECTOR_MODELS, Config

VGG16_FILE = "vgg16-397923af.pth"


def new_model(config: Config, say: Say) -> nn.Module:
    """The model of ``config`` with seeded random weights, then those of its parts as far as they are given.

    Says in one line where a detector stays random. ``UserError`` if a checkpoint is of another model or shape.
    """
    torch.manual_seed(config.seed)
    options, given = asdict(config.model), config.model
    network = models.build(options, config.data.size)
    name, module = given.name, network
    if config.stage == "equivariance":
        assert isinstance(network, Detector)
        module = Equivariance(network, options, len(config.data.transforms))
    parts = part_checkpoints(config)
    detector: Any = getattr(network, "detector", network)
    if "detector" in parts:
        weights.load_detector(module, checkpoint.read_weights(parts["detector"]))
    elif name in DETECTOR_MODELS:
        _load_vgg(detector.encoder, config, say)
        if name != "ptc":
            say(f"model.detector_weights names no pre-trained detector: that of {name} starts without")
    if "harmoniser" in parts:
        weights.load_harmoniser(module, checkpoint.read_weights(parts["harmoniser"]))
    elif name == "two_stage":
        say("the harmoniser of two_stage has random weights: model.harmoniser_weights names no trained dih_m")
    return module


def part_checkpoints(config: Config) -> dict[str, Path]:
    """The checkpoint folders of the given parts, "detector" and "harmoniser". ``UserError`` where one does not fit."""
    parts = {}
    if config.model.detector_weights:
        parts["detector"] = _part(config.model.detector_weights, "ptc", "model.detector_weights", config)
    if config.model.harmoniser_weights:
        parts["harmoniser"] = _part(config.model.harmoniser_weights, "dih_m", "model.harmoniser_weights", config)
    if config.model.vgg_weights:
        _require_vgg(Path(config.model.vgg_weights), config)
    return parts


def trained_model(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The model of a checkpoint folder in eval mode, and its meta.json. Weights load strictly."""
    meta = checkpoint.read_meta(path)
    module = models.build(meta["model"], meta["size"])
    weights.load_part(module, checkpoint.read_weights(path), str(path))
    return module.eval(), meta


def require_harmoniser(meta: dict[str, Any], word: str | Path) -> None:
    """``UserError`` where the checkpoint that ``word`` means harmonises nothing."""
    if (stage := meta["stage"]) != "harmonisation":
        raise UserError(f"{word} is a detector ({stage}): it harmonises nothing; give a harmoniser's checkpoint")


def vgg_path() -> Path:
    """Where torchvision's VGG16 weights are looked for: torch's cache. Nothing is downloaded."""
    return Path(torch.hub.get_dir()) / "checkpoints" / VGG16_FILE


def _load_vgg(encoder: Encoder, config: Config, say: Say) -> None:
    given = config.model.vgg_weights
    path = Path(given) if given else vgg_path()
    if not given and not path.exists():
        say(f"the detector's encoder starts from random weights: no VGG16 file at {path}")
        return
    if config.model.width != 1.0:
        say(f"the detector's encoder starts from random weights: VGG16's do not fit model.width={config.model.width}")
        return
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a missing, damaged or foreign file
        raise UserError(f"model.vgg_weights={path}: not a readable weights file ({type(error).__name__})") from None
    weights.load_vgg16(encoder, state)
    say(f"the detector's encoder starts from the VGG16 weights in {path}")


def _require_vgg(path: Path, config: Config) -> None:
    if config.model.width != 1.0:
        raise UserError(f"model.vgg_weights={path}: VGG16 weights fit model.width=1.0 only, not {config.model.width}")
    if not path.is_file():
        raise UserError(f"model.vgg_weights={path}: there is no such file")


def _part(word: str, wanted: str, key: str, config: Config) -> Path:
    """The checkpoint that ``word`` means, which must be a ``wanted`` of the same width and size."""
    try:
        path = select.resolve(word)
        meta = checkpoint.read_meta(path)
    except UserError as error:
        raise UserError(f"{key}={word}: {error}") from None
    found = meta["model"]
    if found["name"] != wanted:
        raise UserError(f"{key}={word} is a {found['name']} checkpoint: {config.model.name} takes a {wanted} there")
    if meta["stage"] == "equivariance" and config.model.name == "two_stage":
        raise UserError(
            f"{key}={word} is of stage=equivariance, which knows no classes: two_stage takes stage=thresholds"
        )
    if meta["size"] != config.data.size and wanted == "dih_m":
        raise UserError(f"{key}={word} was trained at data.size={meta['size']}, this run has {config.data.size}")
    if wanted == "dih_m" and found["dih_variant"] != config.model.dih_variant:
        raise UserError(f"{key}={word} has model.dih_variant={found['dih_variant']}, not {config.model.dih_variant}")
    if wanted == "dih_m" and found["residual"]:
        raise UserError(f"{key}={word} has model.residual=true and gives differences: train one without")
    if config.model.name == "two_stage" and found["batchnorm_eps"] != config.model.batchnorm_eps:
        raise UserError(
            f"{key}={word} has model.batchnorm_eps={found['batchnorm_eps']:g}, this run has "
            f"{config.model.batchnorm_eps:g}"
        )
    if found["width"] != config.model.width:
        raise UserError(f"{key}={word} has model.width={found['width']}, this run has {config.model.width}")
    return path
