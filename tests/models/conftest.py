from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
import torch

from nrh_dist.schema import DETECTOR_MODELS, FUSION_MODELS, Model


@pytest.fixture
def options() -> Callable[..., dict[str, Any]]:
    """A model's settings as ``config.load`` would resolve them, a quarter as wide unless said otherwise."""

    def make(name: str, **changes: Any) -> dict[str, Any]:
        filled = {"width": 0.25, "freeze": "encoder" if name in DETECTOR_MODELS else None}
        if name in FUSION_MODELS:
            filled["fusion_width"] = 0 if name == "gated" else 16
        if name == "two_stage":
            filled["freeze"] = "all"
        return asdict(Model(name=name, **{**filled, **changes}))

    return make


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(2, 3, 64, 64) * 2 - 1


@pytest.fixture
def mask() -> torch.Tensor:
    return torch.rand(2, 1, 64, 64)
