"""A frozen encoder's features: to be completed."""

from collections.abc import Callable

from torch import nn

from nrh_dist.data.feed import Features
from nrh_dist.data.pack import Pack
from nrh_dist.engine.dist import Place
from nrh_dist.engine.progress import Say
from nrh_dist.schema import Config


def is_exact(config: Config, model: nn.Module) -> bool:
    """Whether the encoder's output is a constant of each photo."""
    return False


def cached(model: nn.Module, config: Config, pack: Pack, place: Place, say: Say, beat: Callable[[], None]) -> Features:
    """The features of the pack's training rows."""
    raise NotImplementedError
