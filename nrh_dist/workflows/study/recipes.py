"""What a study compares: systems, controls that show why, and ablations of ``gated``, one ingredient at a time."""

from dataclasses import dataclass

GATED = ("model.name=gated", "data.clean_fraction=0.2", "loss.gate=0.1", "loss.harm=1")
RATES = (0.0003, 0.001, 0.003, 0.01)  # what every system may choose its learning rate from
DETECTOR, ALL_TRANSFORMS = "detector", "detector-all-transforms"  # runs that systems start from
SWEPT = "gated_swept"


@dataclass(frozen=True)
class Recipe:
    """One way of training, as words for ``nrh train``.

    ``rate_of``: the system whose learning rate it takes; its own name where it chooses one. ``detector``: the run that
    its detector comes from, "" without. ``differs``: what sets a control or an ablation apart.
    """

    name: str
    words: tuple[str, ...]
    rate_of: str
    detector: str = ""
    differs: str = ""

    @property
    def has_harmoniser_part(self) -> bool:
        """Whether it is made of a finished ``dih_m``."""
        return self.name == "two_stage"


def _system(name: str, *words: str, detector: str = DETECTOR) -> Recipe:
    return Recipe(name, words or (f"model.name={name}",), name, detector)


SYSTEMS = (
    _system("dih_m", detector=""),
    _system("dih_nm", detector=""),
    _system("ptc_att_dih"),
    _system("ptc_dih"),
    _system("two_stage"),
    _system("gated", *GATED),
)
CONTROLS = (
    Recipe("dih_nm-residual", ("model.name=dih_nm", "model.residual=true"), "dih_nm", "", "learns a difference"),
    Recipe("ptc_dih-random", ("model.name=ptc_dih",), "ptc_dih", "", "its detector was not trained before"),
    Recipe(
        "ptc_dih-supervised",
        ("model.name=ptc_dih", "loss.gate=0.1"),
        "ptc_dih",
        DETECTOR,
        "its mask is taught the true one",
    ),
)


def _ablation(name: str, differs: str, *words: str, detector: str = DETECTOR, drop: str = "") -> Recipe:
    kept = tuple(word for word in GATED if not drop or not word.startswith(f"{drop}="))
    return Recipe(f"gated-{name}", (*kept, *words), "gated", detector, differs)


ABLATIONS = (
    _ablation("no-gate", "open everywhere", "model.gate=false", drop="loss.gate"),
    _ablation("no-supervision", "the gate is not taught the true mask", drop="loss.gate"),
    _ablation("no-clean-inputs", "never shown an untouched photo", drop="data.clean_fraction"),
    _ablation("pixels", "the decoder's pixels instead of an affine field", "model.correction=pixels"),
    _ablation("no-penalty", "no penalty on what became worse", drop="loss.harm"),
    _ablation("object-loss", "the loss divided by the object's area", "loss.name=object_mse"),
    _ablation("all-transforms", "its detector knows four transformations", detector=ALL_TRANSFORMS),
    _ablation("unfrozen", "the last three convolutions of the encoder learn, too", "model.freeze=encoder_until:10"),
    _ablation("fused", "latent fusion, 128 wide", "model.fusion_width=128"),
)
