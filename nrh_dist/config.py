"""The configuration of a run: defaults <- stage <- preset <- YAML file <- ``key=value``. The keys are in schema.py.

``load`` merges and checks, ``dump`` writes the resolved copy into a run's folder. A value that is left empty (None) and
has a default of its model is filled in by ``load``; nothing else is ever rewritten.
"""

import copy
import dataclasses
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nrh_dist import location
from nrh_dist.errors import UserError
from nrh_dist.schema import (
    DETECTOR_MODELS,
    FREEZE_RULE,
    FUSION_MODELS,
    HARMONISER_PART_MODELS,
    PRESETS,
    SIZES,
    STAGES,
    SUPERVISED_MODELS,
    TRANSFORMS,
    Config,
)

# Keys that say where and how fast, never what: a run may continue with other values of these.
PLACE_KEYS = ("run", "speed", "scale", "track", "storage")
SECRET = re.compile("(KEY|TOKEN|SECRET|PASSWORD)$")  # how environment variables are called that hold one
PATH_KEYS = (
    ("run", "root"),
    ("data", "root"),
    ("data", "pack"),
    ("data", "annotations"),
    ("data", "thresholds"),
    ("model", "detector_weights"),
    ("model", "harmoniser_weights"),
    ("model", "vgg_weights"),
)


def load(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Merge defaults, stage, preset, YAML file and dotted ``key=value`` overrides into a checked ``Config``.

    Raises ``UserError`` for an unreadable file, an unknown key (with the nearest one) or a value outside its rule.
    """
    from_file = _read_yaml(path) if path else OmegaConf.create({})
    from_words = _parse_overrides(overrides)
    schema = OmegaConf.structured(Config)
    for given in (from_file, from_words):
        for name, value in given.items_ex(resolve=False):  # what cannot be resolved is told below
            key = str(name)
            fits = isinstance(value, DictConfig) or not isinstance(schema.get(key), DictConfig)
            _require(fits, key, value, f"holds keys, as in {key}.KEY=VALUE")
    try:
        chosen = OmegaConf.merge(schema, from_file, from_words)
        defaults = OmegaConf.merge(schema, STAGES[chosen.stage], PRESETS[chosen.preset])
        config: Config = OmegaConf.to_object(OmegaConf.merge(defaults, from_file, from_words))  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise UserError(_one_line(error)) from None
    _fill_in(config)
    check(config)
    _refuse_secrets(config)
    return config


def stage_of(path: Path | None, words: Sequence[str]) -> str:
    """What a YAML file and ``words`` say of ``stage``; its default where they say nothing."""
    given: Any = OmegaConf.merge(_read_yaml(path) if path else {}, _parse_overrides(words))
    try:
        return str(given.get("stage", Config().stage))
    except OmegaConfBaseException as error:
        raise UserError(_one_line(error)) from None


def from_dict(values: dict[str, Any]) -> Config:
    """The ``Config`` of a plain dictionary, as ``to_dict`` gives it; checked like any other."""
    try:
        config: Config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), values))  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise UserError(_one_line(error)) from None
    check(config)
    return config


def from_flat(flat: Mapping[str, Any]) -> Config:
    """The ``Config`` of dotted keys, as ``flatten`` and ``identity`` give them; checked like any other."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *section, name = key.split(".")
        (nested.setdefault(section[0], {}) if section else nested)[name] = value
    return from_dict(nested)


def to_dict(config: Config) -> dict[str, Any]:
    """The configuration as a plain dictionary of str, int, float, bool and None."""
    return OmegaConf.to_container(OmegaConf.structured(config))  # type: ignore[return-value]


def dump(config: Config) -> str:
    """The resolved configuration as YAML; ``load`` of it gives the same configuration."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def flatten(config: Config) -> dict[str, Any]:
    """``{"model.name": ..., "optim.lr": ...}``: every dotted key with its value."""
    flat: dict[str, Any] = {}
    for key, value in to_dict(config).items():
        if isinstance(value, dict):
            flat.update({f"{key}.{name}": inner for name, inner in value.items()})
        else:
            flat[key] = value
    return flat


def with_absolute_paths(config: Config, base: Path) -> Config:
    """A copy whose paths, seen from ``base``, mean the same in any working folder, as on the machines of a cluster."""
    copied = copy.deepcopy(config)
    copied.run.name = run_name(config)  # a default name depends on the paths as they were given
    for section, key in PATH_KEYS:
        value = getattr(getattr(copied, section), key)
        if value:
            setattr(getattr(copied, section), key, location.absolute(value, base))
    copied.storage = location.absolute(config.storage, base) if config.storage else None
    return copied


def identity(config: Config) -> dict[str, Any]:
    """The dotted keys that decide the result of a run: all but those of ``PLACE_KEYS``."""
    return {key: value for key, value in flatten(config).items() if key.split(".")[0] not in PLACE_KEYS}


def differing_keys(one: Config, other: Config) -> list[str]:
    """The dotted keys in which two runs would give other results, as ``key: value -> value``."""
    before, after = identity(one), identity(other)
    return [f"{key}: {before[key]} -> {after[key]}" for key in before if before[key] != after[key]]


def run_name(config: Config) -> str:
    """``run.name``, or model, seed and the first 8 hex digits of the hash of ``identity``."""
    if config.run.name:
        return config.run.name
    text = json.dumps(identity(config), sort_keys=True)
    stage = "" if config.stage == "harmonisation" else f"-{config.stage}"
    return f"{config.model.name}{stage}-seed{config.seed}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def run_dir(config: Config) -> Path:
    """The folder of the run: ``run.root/run.name``."""
    return Path(config.run.root) / run_name(config)


def check(config: Config) -> None:
    """Raise ``UserError`` for the first value that breaks a rule, naming the rule, the value and the way out."""
    model, data, train, track, scale = config.model, config.data, config.train, config.track, config.scale
    _require(data.size in SIZES, "data.size", data.size, f"must be one of {SIZES}")
    _require(0 < model.width <= 4, "model.width", model.width, "must be in (0, 4]; 1.0 is the paper")
    _require(0 <= data.val_fraction < 1, "data.val_fraction", data.val_fraction, "must be in [0, 1)")
    _require(0 <= data.clean_fraction < 1, "data.clean_fraction", data.clean_fraction, "must be in [0, 1)")
    least = 0.25 if config.stage == "thresholds" else 0.0
    rule = f"must be above {least:g}" + (", what people notice on average" if least else "")
    _require(data.transform_stops > least, "data.transform_stops", data.transform_stops, rule)
    known = bool(data.transforms) and set(data.transforms) <= set(TRANSFORMS)
    distinct = len(set(data.transforms)) == len(data.transforms)
    rule = f"must be one or more of {', '.join(TRANSFORMS)}, each once"
    _require(known and distinct, "data.transforms", f"[{','.join(data.transforms)}]", rule)
    _require(config.seed >= 0, "seed", config.seed, "must be 0 or more")
    for section, values in dataclasses.asdict(config).items():
        for key, value in values.items() if isinstance(values, dict) else ():
            is_finite = not isinstance(value, float) or math.isfinite(value)
            _require(is_finite, f"{section}.{key}", value, "must be a finite number")
    _require(config.optim.lr > 0, "optim.lr", config.optim.lr, "must be above 0")
    _require(config.optim.eps > 0, "optim.eps", config.optim.eps, "must be above 0")
    _require(
        config.optim.restart_epochs >= 1, "optim.restart_epochs", config.optim.restart_epochs, "must be at least 1"
    )
    _require(train.epochs >= 1, "train.epochs", train.epochs, "must be at least 1")
    _require(train.batch_size >= 1, "train.batch_size", train.batch_size, "must be at least 1")
    _require(train.checkpoint_steps >= 1, "train.checkpoint_steps", train.checkpoint_steps, "must be at least 1")
    _require(train.keep_checkpoints >= 1, "train.keep_checkpoints", train.keep_checkpoints, "must be at least 1")
    _require(train.bad_steps >= 1, "train.bad_steps", train.bad_steps, "must be at least 1")
    _require(train.rollbacks >= 0, "train.rollbacks", train.rollbacks, "must be 0 or more")
    _require(data.max_bad_files >= 0, "data.max_bad_files", data.max_bad_files, "must be 0 or more")
    _require(track.strip_epochs >= 0, "track.strip_epochs", track.strip_epochs, "must be 0 or more")
    _require(2 <= track.finish_seconds <= 100, "track.finish_seconds", track.finish_seconds, "must be in 2..100")
    _require(scale.hang_seconds > 0, "scale.hang_seconds", scale.hang_seconds, "must be above 0")
    _require(scale.workers >= 1, "scale.workers", scale.workers, "must be at least 1")
    fewest = scale.workers if scale.min_workers is None else scale.min_workers
    rule = f"must be in 1..{scale.workers}, the number of scale.workers"
    _require(1 <= fewest <= scale.workers, "scale.min_workers", fewest, rule)
    _require(scale.max_failures >= 0, "scale.max_failures", scale.max_failures, "must be 0 or more")
    _require(
        scale.gpus_per_worker is None or scale.gpus_per_worker >= 0,
        "scale.gpus_per_worker",
        scale.gpus_per_worker,
        "must be 0 or more",
    )
    rule = "is a folder of this machine; storage=... keeps a copy elsewhere"
    _require(not location.is_remote(config.run.root), "run.root", config.run.root, rule)
    if config.storage:
        location.parse(config.storage)
    if config.run.name is not None:
        allowed = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", config.run.name)
        _require(bool(allowed), "run.name", config.run.name, "may hold letters, digits, '.', '_' and '-' only")
    _check_model(config)


def _check_model(config: Config) -> None:
    model, loss, data = config.model, config.loss, config.data
    if model.name in FUSION_MODELS:
        lowest = 1 if model.name == "ptc_att_dih" else 0
        in_range = model.fusion_width is not None and model.fusion_width >= lowest
        _require(in_range, "model.fusion_width", model.fusion_width, f"must be at least {lowest} for {model.name}")
    else:
        _require(
            model.fusion_width is None,
            "model.fusion_width",
            model.fusion_width,
            f"exists for {' and '.join(FUSION_MODELS)} only, not for {model.name}; leave it out",
        )
    if model.name in DETECTOR_MODELS:
        _require(_is_freeze_policy(model.freeze), "model.freeze", model.freeze, f"must be {FREEZE_RULE}")
        if model.name == "two_stage":
            _require(
                model.freeze == "all", "model.freeze", model.freeze, "must be all for two_stage: nothing in it learns"
            )
    else:
        has_no_detector = f"speaks of a detector, and {model.name} has none; leave it out"
        _require(model.freeze is None, "model.freeze", model.freeze, has_no_detector)
        _require(model.detector_weights is None, "model.detector_weights", model.detector_weights, has_no_detector)
    _require(model.correction_grid in (4, 8, 16), "model.correction_grid", model.correction_grid, "must be 4, 8 or 16")
    _require(0 <= model.gate_threshold < 1, "model.gate_threshold", model.gate_threshold, "must be in [0, 1)")
    in_range = 0 <= model.correction_strength <= 1
    _require(in_range, "model.correction_strength", model.correction_strength, "must be in [0, 1]")
    _require(model.batchnorm_eps > 0, "model.batchnorm_eps", model.batchnorm_eps, "must be above 0")
    in_range = 0 < model.batchnorm_momentum <= 1
    _require(in_range, "model.batchnorm_momentum", model.batchnorm_momentum, "must be in (0, 1]")
    _require(model.least_change >= 0, "model.least_change", model.least_change, "must be 0 or more")
    for key, value in (("loss.gate", loss.gate), ("loss.harm", loss.harm)):
        models = SUPERVISED_MODELS[key]
        rule = f"must be 0 for {model.name}: it exists for {' and '.join(models)} only"
        _require(value == 0 or (value > 0 and model.name in models), key, value, rule)
    is_plain = model.name in ("dih_m", "dih_nm") or not model.residual
    _require(is_plain, "model.residual", True, f"exists for dih_m and dih_nm only, not for {model.name}")
    _require(model.gate or model.name == "gated", "model.gate", False, f"is of gated only, not of {model.name}")
    has_gate = model.gate or loss.gate == 0
    _require(has_gate, "loss.gate", loss.gate, "must be 0 with model.gate=false: there is no gate to teach")
    of_detector = loss.object_share == 0 or config.stage == "thresholds"
    rule = "must be in [0, 1), and 0 but for stage=thresholds"
    _require(0 <= loss.object_share < 1 and of_detector, "loss.object_share", loss.object_share, rule)
    if model.harmoniser_weights is not None:
        takes = model.name in HARMONISER_PART_MODELS
        only = f"exists for {', '.join(HARMONISER_PART_MODELS)} only, not for {model.name}; leave it out"
        _require(takes, "model.harmoniser_weights", model.harmoniser_weights, only)
    is_detector_stage = config.stage != "harmonisation"
    _require(
        is_detector_stage == (model.name == "ptc"),
        "model.name",
        model.name,
        "is trained by nrh pretrain (model ptc) or by nrh train (all other models)",
    )
    for key, given in (("annotations", data.annotations), ("thresholds", data.thresholds)):
        rule = "is for nrh pretrain only: a harmoniser learns from composites"
        _require(is_detector_stage or given is None, f"data.{key}", given, rule)
    annotated_root = data.annotations is None or data.root is not None
    _require(annotated_root, "data.annotations", data.annotations, "needs data.root, the folder of its photos")
    metric = config.train.best_metric
    _require(not is_detector_stage or metric == "val/loss", "train.best_metric", metric, "must be val/loss for ptc")


def _fill_in(config: Config) -> None:
    """Fill the values that are empty and have a default of their model or stage: the resolved copy shows them."""
    config.storage = config.storage or os.environ.get(location.VARIABLE) or None
    model = config.model
    if model.fusion_width is None:
        model.fusion_width = FUSION_MODELS.get(model.name)
    if model.freeze is None and model.name in DETECTOR_MODELS:
        model.freeze = {"two_stage": "all", "ptc": "none" if config.stage == "equivariance" else "encoder"}.get(
            model.name, "encoder"
        )


def _is_freeze_policy(value: str | None) -> bool:
    if value in ("encoder", "all", "none"):
        return True
    match = re.fullmatch(r"encoder_until:(\d+)", value or "")
    return bool(match) and 1 <= int(match[1]) <= 13  # type: ignore[index]


def _refuse_secrets(config: Config) -> None:
    """A configuration is written to the disk, into checkpoints and to W&B: ``${oc.env:X}`` must not bring a key in."""
    secrets = {value: name for name, value in os.environ.items() if SECRET.search(name) and len(value) >= 8}
    for key, value in flatten(config).items():
        if found := next((name for secret, name in secrets.items() if secret in str(value)), None):
            raise UserError(
                f"{key} holds the secret in the environment variable {found}: a configuration is written to files, "
                "so give it without"
            )


def _require(holds: bool, key: str, value: Any, rule: str) -> None:
    if not holds:
        raise UserError(f"{key}={value}: {key} {rule}")


def _read_yaml(path: str | Path) -> DictConfig:
    try:
        loaded = OmegaConf.load(path)
    except FileNotFoundError:
        raise UserError(f"no configuration file at {path}") from None
    except Exception as error:  # OmegaConf passes on the errors of its YAML reader and of the file system
        raise UserError(f"{path} is not a readable YAML file: {_one_line(error)}") from None
    if not isinstance(loaded, DictConfig):
        raise UserError(f"{path} must hold keys and values, but holds a {type(loaded).__name__}")
    return loaded


def _parse_overrides(overrides: Sequence[str]) -> DictConfig:
    for word in overrides:
        if not re.match(r"[A-Za-z_][\w.]*=", word):
            raise UserError(f"'{word}' is not of the form key=value, as in optim.lr=0.001")
    try:
        return OmegaConf.from_dotlist(list(overrides))
    except Exception as error:  # a YAML error inside a value
        raise UserError(f"cannot read {' '.join(overrides)}: {_one_line(error)}") from None


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    key = next((line.split(":", 1)[1].strip() for line in lines if line.strip().startswith("full_key:")), "")
    return f"{key}: {lines[0]}" if key else lines[0]
