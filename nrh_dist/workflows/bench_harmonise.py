"""Harmonising a large photo, against decoding and encoding it; and the start of the verb, against onnxruntime's own.

The model is exported, of random weights and the smallest width: what is measured is what is done to the photo.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from nrh_dist.data.images import resize_photo
from nrh_dist.data.scenes import draw
from nrh_dist.engine import onnx
from nrh_dist.engine.predict import load, write
from nrh_dist.engine.progress import Say
from nrh_dist.photo.image import open_photo
from nrh_dist.photo.writing import encoded_anew
from nrh_dist.workflows import command
from nrh_dist.workflows.measure import Figure, figure, in_turns, ratios, seconds
from nrh_dist.workflows.sample import random_checkpoint

MODELS = {"gated": "an affine field behind a gate", "ptc_dih": "a decoder's picture"}
QUALITY = 95
WIDTH = 0.05


@dataclass(frozen=True)
class Settings:
    """A JPEG of ``width`` x ``height`` through models of ``size`` pixels."""

    width: int = 4000
    height: int = 3000
    size: int = 256
    rounds: int = 5


def bench(say: Say, settings: Settings | None = None) -> list[Figure]:
    """The figures: one a model, and one of the start."""
    settings = settings or Settings()
    with TemporaryDirectory(prefix="nrh-bench-") as temporary:
        folder = Path(temporary)
        path = _photo(folder / "photo.jpg", settings)
        exported = {}
        for name in MODELS:
            made = random_checkpoint(folder, name, WIDTH, settings.size)
            exported[name] = onnx.export(made, folder / f"{name}.onnx", say)
        found = []
        for name in MODELS:
            say(f"harmonise: {name}, {settings.rounds} rounds")
            found.append(_of_photo(path, exported[name], name, settings))
        say(f"harmonise: start, {settings.rounds} rounds")
        return [*found, _of_start(folder, exported["gated"], settings)]


def _photo(path: Path, settings: Settings) -> Path:
    """A drawn scene, enlarged, with texture as fine as its pixels."""
    scene = Image.fromarray(draw(np.random.default_rng(0), 800, 600).photo)
    large = np.asarray(scene.resize((settings.width, settings.height), Image.Resampling.BICUBIC), np.float32)
    noise = np.random.default_rng(0).normal(0, 4, (*large.shape[:2], 1)).astype(np.float32)
    Image.fromarray((large + noise).clip(0, 255).astype(np.uint8)).save(path, quality=QUALITY)
    return path


def _of_photo(path: Path, exported: Path, name: str, settings: Settings) -> Figure:
    model, out = load(exported), path.with_name("out.jpg")

    def ours() -> None:
        photo = open_photo(path)
        found = model.look(photo)
        assert found.correction is not None, "a random model changes every photo"
        write(photo, found, out)

    def peer() -> None:
        encoded_anew(open_photo(path), out)

    ours()
    costs = in_turns({"ours": lambda _: seconds(ours), "peer": lambda _: seconds(peer)}, settings.rounds)
    size = f"{settings.width} x {settings.height} px"
    unit = f"seconds for a JPEG of {size}, {MODELS[name]} at {settings.size} px, all cores"
    return figure(
        f"harmonising with {name}", ratios(costs["peer"], costs["ours"]), None, "decoding and encoding the file", unit
    )


def _of_start(folder: Path, exported: Path, settings: Settings) -> Figure:
    photo = folder / "small.png"
    Image.fromarray(resize_photo(draw(np.random.default_rng(0), 256, 256).photo, 64)).save(photo)
    words = ["-m", "nrh_dist", "harmonise", str(photo), "-o", str(folder / "out"), "--checkpoint", str(exported)]

    def run(*words: str) -> float:
        return seconds(command.run, [sys.executable, *words], folder)

    sides = {
        "ours": lambda _: run(*words, "--force"),
        "peer": lambda _: run("-c", "import onnxruntime"),
    }
    costs = in_turns(sides, settings.rounds)
    unit = "seconds of a process that harmonises one small photo"
    return figure("start", ratios(costs["peer"], costs["ours"]), None, "importing onnxruntime and nothing else", unit)
