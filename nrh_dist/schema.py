"""The schema: every configuration key with its default, as dataclasses, and the presets."""

from dataclasses import dataclass, field
from typing import Any, Literal

SIZES = (64, 128, 256)
TRANSFORMS = ("exposure", "white_balance", "saturation", "contrast")
MASKED_MODEL = "dih_m"  # the one that is given the object's mask
DETECTOR_MODELS = ("ptc", "two_stage", "ptc_dih", "ptc_att_dih", "gated")
FUSION_MODELS = {"ptc_att_dih": 512, "gated": 0}
HARMONISER_PART_MODELS = ("two_stage", "ptc_dih", "gated")
SUPERVISED_MODELS = {"loss.gate": ("gated", "ptc_dih"), "loss.harm": ("gated",)}
FREEZE_RULE = "encoder, all, none or encoder_until:N with N from 1 to 13 (the VGG convolutions)"


@dataclass
class Run:
    """Where a run is kept: ``root/name``. An empty name becomes model, seed and a hash of the configuration."""

    root: str = "runs"
    name: str | None = None


@dataclass
class Model:
    """Which network, and how wide.

    ``width`` multiplies every channel count (1.0 is the paper). ``fusion_width`` and ``freeze`` are filled in by model
    when left empty. ``vgg_weights`` is torchvision's VGG16 file for a new detector; empty means torch's cache, and
    random weights where it is not there. ``residual``: DIH learns what to add to the image, not the image. ``gate``
    (false: always open), ``gate_threshold``, ``correction*`` and ``least_change`` (MSE on the 0..255 scale; a photo
    that would change by less is left alone) belong to ``gated``; ``nrh calibrate`` chooses threshold, strength and
    least change of a finished one.
    TensorFlow's defaults: ``initialisation=glorot batchnorm_eps=1e-3 batchnorm_momentum=0.01`` (torch's convention).
    """

    name: Literal["dih_m", "dih_nm", "ptc", "two_stage", "ptc_dih", "ptc_att_dih", "gated"] = "ptc_dih"
    width: float = 1.0
    dih_variant: Literal["inner", "outer"] = "inner"
    fusion_width: int | None = None
    freeze: str | None = None
    dropout: bool = True
    detector_weights: str | None = None
    harmoniser_weights: str | None = None
    vgg_weights: str | None = None
    residual: bool = False
    gate: bool = True
    gate_threshold: float = 0.0
    correction: Literal["affine", "pixels"] = "affine"
    correction_grid: int = 8
    correction_strength: float = 1.0
    least_change: float = 0.0
    initialisation: Literal["torch", "glorot"] = "torch"
    batchnorm_eps: float = 1e-5
    batchnorm_momentum: float = 0.1


@dataclass
class Data:
    """What is trained on: a data ``root`` (packed once into the cache) or a finished ``pack``.

    A root is of iHarmony4 layout. For the detector it may also be a folder of ``images`` and ``masks``, or the photos
    of a COCO file of ``annotations``. ``thresholds`` is a CSV file of human thresholds for its photos.
    ``val_fraction`` of the training photos, drawn by the seed, are kept for validation; 0: the data's own val list.
    ``clean_fraction`` of the training samples are shown untouched, with an empty mask. ``drop_leaked`` leaves out
    training photos that are also in the test list. Up to ``max_bad_files`` files that cannot be used are left out of
    the pack, named and counted; 0: the first one ends the packing. The detector learns to see the local ``transforms``
    (exposure, white_balance, saturation, contrast; the paper's is exposure alone), up to ``transform_stops`` both ways.
    """

    root: str | None = None
    pack: str | None = None
    annotations: str | None = None
    thresholds: str | None = None
    size: int = 256
    val_fraction: float = 0.05
    clean_fraction: float = 0.0
    drop_leaked: bool = False
    max_bad_files: int = 0
    transforms: list[str] = field(default_factory=lambda: ["exposure"])
    transform_stops: float = 3.321928094887362  # log2(10), science of the PTC's pre-training


@dataclass
class Loss:
    """``mse`` is the paper's; ``object_mse`` divides each image's squared error by its object's area.

    ``gate`` weighs the supervision of the predicted mask with the known one (``gated``, ``ptc_dih``), ``harm`` the
    penalty relu(MSE_out - MSE_in) (``gated``). ``object_share`` is that of the object's pixels in the detector's focal
    loss of stage=thresholds; 0: every pixel counts alike, as in the paper.
    """

    name: Literal["mse", "object_mse"] = "mse"
    gate: float = 0.0
    harm: float = 0.0
    object_share: float = 0.0


@dataclass
class Optim:
    """Adam. TensorFlow's epsilon is 1e-7.

    ``schedule``: constant, or a cosine that falls to 0 with the steps of ``restart_epochs`` epochs, and then restarts.
    """

    lr: float = 1e-3
    eps: float = 1e-8
    schedule: Literal["constant", "cosine_restarts"] = "constant"
    restart_epochs: int = 10


@dataclass
class Train:
    """``batch_size`` is global, over all workers. Checkpoints: every epoch and every ``checkpoint_steps`` steps.

    ``precision``: auto is bfloat16 autocast on a GPU that has it, float32 elsewhere. A step whose gradient is not
    finite is skipped on all ranks; after ``bad_steps`` of them in a row the run goes back to its newest checkpoint, at
    most ``rollbacks`` times, and then stops with a report.
    """

    epochs: int = 50
    batch_size: int = 32
    checkpoint_steps: int = 1000
    keep_checkpoints: int = 2
    best_metric: Literal["val/loss", "val/mse"] = "val/loss"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    bad_steps: int = 3
    rollbacks: int = 2


@dataclass
class Speed:
    """How fast, never what: with any of these a training gives the same, to rounding.

    ``feed``: the pack in the device's memory (resident), or each batch through pinned memory (stream); auto measures.
    ``features``: a frozen encoder's output is computed once for each photo and kept in the cache. ``channels_last``:
    empty is yes on a GPU. ``compile``: auto is none on a CPU; default and reduce-overhead (CUDA graphs) are
    torch.compile's modes. ``keep_memory``: a training on a CPU keeps the memory that it frees for its next step.
    """

    feed: Literal["auto", "resident", "stream"] = "auto"
    features: bool = True
    channels_last: bool | None = None
    compile: Literal["auto", "none", "default", "reduce-overhead"] = "auto"
    fused_adam: bool = True
    keep_memory: bool = True


@dataclass
class Track:
    """Weights & Biases beside the JSONL file. The environment's WANDB_MODE beats ``wandb``.

    Every ``strip_epochs`` epochs (0: never) a few validation photos are shown beside what the model makes of them.
    ``artifacts``: the best checkpoint when the run ends, or that of every epoch. The end of a run waits for W&B for
    ``finish_seconds`` at most; what was not sent by then is left for ``nrh track sync``.
    """

    wandb: Literal["online", "offline", "disabled"] = "offline"
    project: str = "nrh_dist"
    group: str | None = None
    strip_epochs: int = 5
    artifacts: Literal["none", "best", "all"] = "best"
    finish_seconds: float = 8.0


@dataclass
class Scale:
    """How many training workers, and how many GPUs each (empty: one where the cluster has any, else none).

    With ``min_workers`` a training starts with fewer where there is no room for more, and takes those that come: each
    change of their number costs what was done since the last checkpoint.

    ``max_failures`` restarts, without a new checkpoint in between, of a run whose processes died. A worker without
    progress for ``hang_seconds`` (or ten times its slowest step, if that is longer) writes down where each of its
    threads stands and ends.
    """

    workers: int = 1
    min_workers: int | None = None
    gpus_per_worker: float | None = None
    max_failures: int = 3
    hang_seconds: float = 60.0


@dataclass
class Config:
    """The root of the schema. ``stage`` is harmonisation for ``nrh train``, one of the others for ``nrh pretrain``.

    ``storage`` is where runs and sweeps are kept beyond this machine's disk: s3://bucket/prefix, gs://bucket/prefix or
    a folder; empty: the environment's NRH_STORAGE, or nowhere. It holds no key, ever.
    """

    preset: Literal["paper", "tiny"] = "paper"
    stage: Literal["harmonisation", "equivariance", "thresholds"] = "harmonisation"
    seed: int = 0
    storage: str | None = None
    run: Run = field(default_factory=Run)
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    loss: Loss = field(default_factory=Loss)
    optim: Optim = field(default_factory=Optim)
    train: Train = field(default_factory=Train)
    speed: Speed = field(default_factory=Speed)
    track: Track = field(default_factory=Track)
    scale: Scale = field(default_factory=Scale)


# What a stage has for defaults of its own: the detector's authors train it by Adam at 1e-4 with cosine restarts.
STAGES: dict[str, dict[str, Any]] = {
    "harmonisation": {},
    "equivariance": {"optim": {"lr": 1e-4, "schedule": "cosine_restarts"}},
    "thresholds": {},
}
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "tiny": {
        "model": {"width": 0.25, "dropout": False},  # SpatialDropout would leave the last layer 4 channels
        "data": {"size": 64, "val_fraction": 0.1},
        "train": {"epochs": 5, "batch_size": 16, "checkpoint_steps": 200},
    },
}
