"""LPIPS with AlexNet (Zhang et al., CVPR 2018) behind one class. Nothing is ever downloaded.

The heads come with the package ``lpips``; the backbone is torchvision's AlexNet file, looked for in torch's own cache.
"""

import warnings
from pathlib import Path

import lpips
import torch
from torch import Tensor, nn

from nrh_dist.errors import UserError
from nrh_dist.models.weights import load_part

BACKBONE_FILE = "alexnet-owt-7be5be79.pth"  # torchvision's AlexNet, IMAGENET1K_V1


def weights_path() -> Path:
    """Where the backbone is looked for: $TORCH_HOME/hub/checkpoints, or torch's default for it."""
    return Path(torch.hub.get_dir()) / "checkpoints" / BACKBONE_FILE


def missing() -> str | None:
    """Why LPIPS cannot be computed here, with the way out, on one line; None where it can."""
    path = weights_path()
    if path.is_file():
        return None
    return f"LPIPS needs torchvision's AlexNet weights at {path}, and that file is not there"


class Perceptual(nn.Module):
    """LPIPS distances between images N3HW in [-1, 1] (clamped here), a value an image; lower is more alike.

    ``features`` of the real images can be computed once and compared with the outputs of many models. Raises
    ``UserError`` where the backbone is missing or is not AlexNet's. ``pretrained=False`` has a random backbone: for
    tests, its values are not LPIPS.
    """

    def __init__(self, pretrained: bool = True) -> None:
        super().__init__()
        reason = missing() if pretrained else None
        if reason:
            raise UserError(reason)
        with warnings.catch_warnings():  # lpips calls torchvision in a way that torchvision wants to end
            warnings.filterwarnings("ignore", message=r".*'pretrained' is deprecated", category=UserWarning)
            warnings.filterwarnings("ignore", message="Arguments other than a weight enum", category=UserWarning)
            self.lpips = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
        if pretrained:
            _load_backbone(self.lpips.net, weights_path())
        self.requires_grad_(False)
        self.eval()

    @torch.no_grad()
    def features(self, image: Tensor) -> list[Tensor]:
        """The normalised activations of AlexNet's five layers, each N x C x h x w."""
        activations = self.lpips.net(self.lpips.scaling_layer(image.clamp(-1, 1)))
        return [lpips.normalize_tensor(activation) for activation in activations]

    @torch.no_grad()
    def distance_to(self, output: Tensor, real_features: list[Tensor]) -> Tensor:
        """LPIPS of N outputs to the real images whose ``features`` are given: N values."""
        total = torch.zeros(len(output), 1, 1, 1, dtype=output.dtype, device=output.device)
        for one, other, head in zip(self.features(output), real_features, self.lpips.lins, strict=True):
            total = total + lpips.spatial_average(head((one - other) ** 2))
        return total.flatten()

    def distance(self, output: Tensor, real: Tensor) -> Tensor:
        """LPIPS between N outputs and their N real images: N values."""
        return self.distance_to(output, self.features(real))


def _load_backbone(net: nn.Module, path: Path) -> None:
    """Load AlexNet's convolutions: "slice2.3.weight" of lpips is "features.3.weight" of torchvision."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and its zip reader raise many kinds for a damaged file
        raise UserError(f"{path} cannot be read as weights ({type(error).__name__}): replace the file") from None
    sources = {key: "features." + key.split(".", 1)[1] for key in net.state_dict()}
    load_part(net, {key: state[source] for key, source in sources.items() if source in state}, str(path))
