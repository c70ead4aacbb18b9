"""The networks. ``build`` makes any of them from the plain dictionary of ``config.Model``."""

from collections.abc import Callable
from typing import Any

from torch import nn

from nrh_dist.errors import UserError
from nrh_dist.models import freeze
from nrh_dist.models.blocks import Prediction, parameter_count
from nrh_dist.models.dih import Dih
from nrh_dist.models.gated import Gated
from nrh_dist.models.ptc import Detector, EncoderOnly
from nrh_dist.models.ptc_att_dih import PtcAttDih
from nrh_dist.models.ptc_dih import PtcDih
from nrh_dist.models.two_stage import TwoStage
from nrh_dist.schema import DETECTOR_MODELS, SIZES

__all__ = ["Prediction", "build", "parameter_count"]

MODELS: dict[str, Callable[[dict[str, Any], int], nn.Module]] = {
    "dih_m": lambda options, size: Dih(options, size, masked=True),
    "dih_nm": lambda options, size: Dih(options, size, masked=False),
    "ptc": Detector,
    "two_stage": TwoStage,
    "ptc_dih": PtcDih,
    "ptc_att_dih": PtcAttDih,
    "gated": Gated,
}


def build(model: dict[str, Any], size: int) -> nn.Module:
    """The network of ``dataclasses.asdict(config.model)`` for images of ``size`` x ``size``, frozen as configured.

    Every harmoniser is ``forward(image, mask) -> Prediction``, where only ``dih_m`` looks at the mask. Those with a
    trained detector also take ``features=``, the detector's encoder output where it is known already. ``ptc`` is
    ``forward(image) -> logits``. Random weights come from torch's global generator. Raises ``UserError`` for a name or
    size that does not exist.
    """
    name = model["name"]
    if name not in MODELS:
        raise UserError(f"model.name={name}: model.name must be one of {', '.join(MODELS)}")
    if size not in SIZES:
        raise UserError(f"data.size={size}: data.size must be one of {SIZES}")
    network = MODELS[name](model, size)
    if name in DETECTOR_MODELS:
        detector = getattr(network, "detector", network)
        assert isinstance(detector, Detector | EncoderOnly)
        freeze.apply(detector, model["freeze"])
    return network
