"""One side of the step bench: a model, its batch and its optimiser, tuned by the configuration or in plain PyTorch."""

from dataclasses import asdict
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nrh_dist import config as configuration
from nrh_dist import losses, models
from nrh_dist.engine import speed
from nrh_dist.engine.dist import Place
from nrh_dist.engine.progress import Say
from nrh_dist.models.blocks import UpsamplingConvolution
from nrh_dist.schema import DETECTOR_MODELS, Config


class Images(NamedTuple):
    """A batch as the loop gets it: photos N3SS in [-1, 1], channels last, and masks N1SS in [0, 1]."""

    composite: Tensor
    real: Tensor
    mask: Tensor


class Recipe(NamedTuple):
    """What a side is made of: words of a configuration, and how ``Step`` takes them."""

    words: list[str]
    plain: bool
    features: bool

    @property
    def config(self) -> Config:
        """The configuration of these words."""
        return configuration.load(None, self.words)

    def step(self, device: torch.device, say: Say) -> "Step":
        """The side, on ``device``."""
        config = self.config
        images = random_images(config.train.batch_size, config.data.size, device)
        return Step(config, images, device, say, plain=self.plain, features=self.features)


class Step:
    """A model in training on one batch that never changes; calling it makes one optimiser step.

    ``features``: the frozen encoder's output is computed now and kept. ``plain`` knows nothing of the configuration's
    ``speed``: the model as it is, NCHW, and Adam at torch's defaults.
    """

    def __init__(
        self, config: Config, images: Images, device: torch.device, say: Say, *, plain: bool, features: bool
    ) -> None:
        torch.manual_seed(config.seed)
        model = models.build(asdict(config.model), config.data.size).to(device)
        if plain and not features:
            enlarge_before_convolving(model)
        self.images = Images(*(one.contiguous() for one in images)) if plain else images
        self.inputs = {"features": _features(model, images.composite)} if features else {}
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.parameters = sum(parameter.numel() for parameter in learning)
        self.optimiser: torch.optim.Optimizer
        if plain:
            self.learner: nn.Module = model
            self.optimiser = torch.optim.Adam(learning, lr=config.optim.lr, eps=config.optim.eps)
        else:
            self.learner = speed.learner(model, config, Place(device=device), say)
            self.optimiser = speed.optimiser(learning, config, device)
        self.learner.train()

    def __call__(self) -> Tensor:
        """One step; the loss before it."""
        images = self.images
        prediction = self.learner(images.composite, images.mask, **self.inputs)
        loss = losses.mse(prediction.image, images.real).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return loss.detach()

    @torch.no_grad()
    def validate(self) -> Tensor:
        """The losses of the batch, as a validation has them."""
        self.learner.eval()
        prediction = self.learner(self.images.composite, self.images.mask, **self.inputs)
        return losses.mse(prediction.image, self.images.real)


def random_images(batch: int, size: int, device: torch.device) -> Images:
    """Noise, which takes as long as photos."""
    random = torch.Generator().manual_seed(0)
    composite, real = (torch.rand(batch, 3, size, size, generator=random).mul_(2).sub_(1) for _ in range(2))
    mask = (torch.rand(batch, 1, size, size, generator=random) > 0.5).float()
    return Images(*(one.to(device, memory_format=torch.channels_last) for one in (composite, real, mask)))


def has_encoder(name: str) -> bool:
    """Whether a model has a detector whose frozen encoder's output can be kept."""
    return name in DETECTOR_MODELS


def enlarge_before_convolving(model: nn.Module) -> None:
    """Replace each ``UpsamplingConvolution`` by what it computes: nearest upsampling, then its 3x3 convolution."""
    for parent in [*model.modules()]:
        for name, child in parent.named_children():
            if isinstance(child, UpsamplingConvolution):
                plain = nn.Conv2d(child.in_channels, child.out_channels, 3, padding=1, bias=False)
                plain.weight = child.weight
                setattr(parent, name, nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), plain))


@torch.no_grad()
def _features(model: nn.Module, composite: Tensor) -> Tensor:
    encoder = model.detector.encoder  # type: ignore[union-attr]
    features: Tensor = encoder(composite)  # type: ignore[operator]
    return features.contiguous()
