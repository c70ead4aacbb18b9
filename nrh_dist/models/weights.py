"""Loading the parts of a model from the weights of another: everything fits, or a ``UserError`` says what does not."""

from collections.abc import Mapping

from torch import Tensor, nn

from nrh_dist.errors import UserError
from nrh_dist.models.gated import Gated
from nrh_dist.models.ptc import Encoder

WAY_OUT = "these weights are of another model, width, size or variant: give weights made with the same model settings"


def load_part(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Copy ``state`` into ``module``. Names and shapes must all agree; ``what`` begins the message where one does not.

    Raises ``UserError`` with the first missing, unexpected or mis-shaped key, before anything is changed.
    """
    own = module.state_dict()
    for key in own:
        if key not in state:
            raise UserError(f"{what}: {key} is missing; {WAY_OUT}")
    for key, value in state.items():
        if key not in own:
            raise UserError(f"{what}: {key} is unexpected; {WAY_OUT}")
        if value.shape != own[key].shape:
            shapes = f"is {tuple(value.shape)} and must be {tuple(own[key].shape)}"
            raise UserError(f"{what}: {key} {shapes}; {WAY_OUT}")
    module.load_state_dict(state)


def load_detector(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a model with a detector, or ``ptc`` itself, the weights of a trained one.

    ``state`` is that of ``ptc`` (encoder.*, decoder.*) or of any model that holds a detector, such as ``Equivariance``.
    A 1-channel head is new and keeps its own start; where only the encoder is used, the decoder is left out.
    """
    detector = getattr(model, "detector", model)
    part = _inside(state, "detector.") or dict(state)
    own = detector.state_dict()
    head = own.get("decoder.head.weight")
    if head is None:
        part = {key: value for key, value in part.items() if not key.startswith("decoder.")}
    elif head.shape[0] == 1:
        part.update(_starting_with("decoder.head.", own))
    load_part(detector, part, "detector weights")


def load_harmoniser(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a model's harmoniser the weights of a trained ``dih_m`` (harmoniser.*).

    The head of ``gated`` is new and keeps its zeros; the stages of the decoder that it has not are left out.
    """
    harmoniser = getattr(model, "harmoniser", None)
    if harmoniser is None:
        raise UserError("harmoniser weights: this model has no harmoniser; leave model.harmoniser_weights out")
    part = _inside(state, "harmoniser.")
    if isinstance(model, Gated):
        own = harmoniser.state_dict()
        part = {key: value for key, value in part.items() if key in own or not key.startswith(("decoder.", "head."))}
        part.update(_starting_with("head.", own))
    load_part(harmoniser, part, "harmoniser weights")


def load_vgg16(encoder: Encoder, state: Mapping[str, Tensor]) -> None:
    """Give the PTC's encoder torchvision's VGG16 weights (features.*; its classifier is not used). Width 1 only."""
    load_part(encoder.vgg, _inside(state, "features."), "VGG16 weights")


def _inside(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries below ``prefix``, without it."""
    return {key.removeprefix(prefix): value for key, value in _starting_with(prefix, state).items()}


def _starting_with(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key.startswith(prefix)}
