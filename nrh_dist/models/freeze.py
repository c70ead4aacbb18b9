"""What of a detector learns: the policies of ``model.freeze``.

| policy              | encoder                         | decoder | head   |
|---------------------|---------------------------------|---------|--------|
| ``encoder``         | frozen (the paper)              | learns  | learns |
| ``all``             | frozen                          | frozen  | learns |
| ``none``            | learns                          | learns  | learns |
| ``encoder_until:N`` | first N VGG convolutions frozen | learns  | learns |

A frozen part has no gradients and runs in eval mode, so its BatchNorm statistics stay as they are. ``two_stage``
freezes itself altogether.
"""

import re

from nrh_dist.errors import UserError
from nrh_dist.models.ptc import Detector, EncoderOnly
from nrh_dist.schema import FREEZE_RULE


def apply(detector: Detector | EncoderOnly, policy: str) -> None:
    """Freeze parts of a detector, for good. Raises ``UserError`` for a policy that does not exist."""
    until = re.fullmatch(r"encoder_until:(\d+)", policy)
    if until:
        detector.encoder.freeze_convolutions(int(until[1]))
    elif policy in ("encoder", "all"):
        detector.encoder.freeze()
        if policy == "all" and isinstance(detector, Detector):
            detector.decoder.body.freeze()
    elif policy != "none":
        raise UserError(f"model.freeze={policy}: model.freeze must be {FREEZE_RULE}")
