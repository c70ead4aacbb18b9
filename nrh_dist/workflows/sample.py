"""Sample data packed and models of random weights: what benches work on that need no photos and no training."""

from dataclasses import asdict
from pathlib import Path

import torch

from nrh_dist import config
from nrh_dist.data.layouts import Source, index
from nrh_dist.data.pack import Pack, write_pack
from nrh_dist.data.synthetic import write_sample
from nrh_dist.engine import checkpoint
from nrh_dist.engine.assemble import new_model
from nrh_dist.engine.progress import Say


def sample_pack(folder: Path, size: int, say: Say) -> Pack:
    """The pack of the sample iHarmony4 data at ``size`` pixels, made in ``folder``."""
    write_sample(folder / "sample", say=say)
    return write_pack(index(Source(folder / "sample" / "iharmony4")), folder / "pack", size, 1, lambda _: None)


def random_checkpoint(folder: Path, name: str, width: float, size: int) -> Path:
    """A checkpoint of the model ``name`` below ``folder``; models of one width and size have one encoder in common."""
    one = config.load(None, ["preset=tiny", f"model.name={name}", f"model.width={width}", f"data.size={size}"])
    facts = {"epoch": 1, "step": 1, "pack": "", "world_size": 1, "metrics": {}, "config": config.identity(one)}
    meta = {"stage": one.stage, "model": asdict(one.model), "size": size, **facts}
    model = new_model(one, lambda _: None)
    for key, value in model.state_dict().items():
        if key.endswith("head.weight"):
            torch.nn.init.normal_(value)  # zero at first in gated, which would leave every photo as it is
    return checkpoint.save(folder / name / "checkpoints", model.state_dict(), {}, meta)
