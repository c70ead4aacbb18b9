"""One function of a small picture, by torch and by onnxruntime; what is refused; what is imported."""

import json
import os
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import torch
from choices import make_real_run
from PIL import Image

import nrh_dist
from nrh_dist.engine import chosen, export, onnx
from nrh_dist.engine.assemble import trained_model
from nrh_dist.engine.network import FIELD, IMAGE, MASK, open_network
from nrh_dist.errors import UserError
from nrh_dist.models import MODELS

HARMONISERS = [name for name in MODELS if name != "ptc"]
QUICK = ("dih_m", "gated")  # to export one takes ten seconds
EXPORTED = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in HARMONISERS]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """``checkpoints(name)``: a random one of a model; ``gated-pixels``: of gated that draws pixels."""
    root = tmp_path_factory.mktemp("runs")
    words = {"gated-pixels": ("gated", "model.correction=pixels"), "ptc": ("ptc", "stage=thresholds")}
    return cache(lambda name: make_real_run(root, name, *words.get(name, (name,))))


@pytest.fixture(scope="module")
def exported(checkpoints, tmp_path_factory):
    """``exported(name)``: as an ONNX file, with what was said."""
    root = tmp_path_factory.mktemp("exported")

    @cache
    def exported(name):
        said = []
        return onnx.export(checkpoints(name), root / f"{name}.onnx", said.append), said

    return exported


@pytest.mark.parametrize("name", [*EXPORTED, pytest.param("gated-pixels", marks=pytest.mark.slow)])
def test_onnx_gives_what_torch_gives(checkpoints, exported, name):
    path, (begun, line) = exported(name)
    assert "half a minute" in begun
    assert "of 16 pictures, the largest difference from torch is" in line
    network, light = open_network(checkpoints(name)), open_network(path)
    assert (light.name, light.size) == (network.name, 64) == (name.split("-")[0], 64)
    rng = np.random.default_rng(0)
    picture, mask = rng.random((64, 64, 3), dtype=np.float32), rng.random((64, 64), dtype=np.float32)
    ours, theirs = network(picture, mask), light(picture, mask)
    assert ours.is_gated == theirs.is_gated == (name.startswith("gated"))
    for one, other in zip(ours[:2] + ours[3:], theirs[:2] + theirs[3:], strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert one.shape == other.shape and abs(one - other).max() < onnx.TOLERANCE
    assert (ours.mask is not None) == network.detects == (name.split("-")[0] in ("two_stage", "ptc_dih", "gated"))
    assert (ours.field is not None) == (name == "gated")


@pytest.mark.parametrize("name", EXPORTED)
def test_an_exported_model_takes_any_number_of_pictures(exported, name):
    network = open_network(exported(name)[0])
    rng = np.random.default_rng(0)
    photos = rng.random((5, 3, 64, 64), dtype=np.float32) * 2 - 1
    masks = rng.random((5, 1, 64, 64), dtype=np.float32) if network.needs_mask else None
    together = network.run(photos, masks)
    for number in range(5):
        alone = network.run(photos[number : number + 1], None if masks is None else masks[number : number + 1])
        for part, value in alone.items():
            assert abs(value[0] - together[part][number]).max() < 1e-4


def test_the_network_is_the_model(tmp_path):
    picture = np.random.default_rng(0).random((64, 64, 3), dtype=np.float32)
    opening = open_network(make_real_run(tmp_path, "open", "gated"))(picture).mask
    path = make_real_run(tmp_path, "half-shut", "gated", f"model.gate_threshold={np.median(opening)}")
    model, _ = trained_model(path)
    with torch.no_grad():
        made = model(torch.from_numpy(picture).permute(2, 0, 1)[None] * 2 - 1)
    answer = open_network(path)(picture)
    wanted = (made.image[0].permute(1, 2, 0).numpy() + 1) / 2
    assert abs(answer.image - wanted.clip(0, 1)).max() < 1e-6
    assert (answer.mask == made.mask[0, 0].numpy()).all()
    shut = answer.mask == 0
    assert shut.any() and not shut.all() and (answer.image[shut] == picture[shut]).all(), "to the bit"
    grid = made.field.shape[-1]
    assert answer.field.shape == (grid, grid, 6)


def test_the_model_card_is_in_the_file(exported):
    import onnx as library

    path, _ = exported("gated")
    graph = library.load(path)
    library.checker.check_model(graph)
    assert graph.doc_string.startswith("# gated at 64 px") and "## Limits" in graph.doc_string
    assert json.loads({one.key: one.value for one in graph.metadata_props}["nrh_dist"])["size"] == 64
    assert {one.name for one in graph.graph.output} == {IMAGE, MASK, FIELD}


def test_an_export_that_differs_leaves_nothing(checkpoints, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx, "TOLERANCE", -1.0)
    with pytest.raises(UserError, match="as ONNX differs from torch by"):
        onnx.export(checkpoints("dih_nm"), tmp_path / "a.onnx", print)
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_the_proof_is_one_also_of_a_model_that_leaves_all_alone(tmp_path):
    reluctant = [
        make_real_run(tmp_path, f"seed{seed}", "gated", "model.least_change=1e6", f"seed={seed}") for seed in (0, 1)
    ]
    exported = onnx.export(reluctant[0], tmp_path / "a.onnx", print)
    picture = np.random.default_rng(0).random((64, 64, 3), dtype=np.float32)
    assert (open_network(exported)(picture).image == picture).all()
    assert onnx.difference(reluctant[0], exported) < 1e-4 < onnx.difference(reluctant[1], exported)


def test_what_cannot_be_exported(checkpoints, tmp_path):
    with pytest.raises(UserError, match="is a detector"):
        onnx.export(checkpoints("ptc"), tmp_path / "a.onnx", print)
    (tmp_path / "b.onnx").touch()
    with pytest.raises(UserError, match="exists"):
        onnx.export(checkpoints("dih_nm"), tmp_path / "b.onnx", print)
    with pytest.raises(UserError, match=r"ends in \.onnx"):
        onnx.export(checkpoints("dih_nm"), tmp_path / "model", print)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        onnx.export(checkpoints("dih_nm"), tmp_path / "file" / "c.onnx", print)


def test_what_is_no_harmoniser(checkpoints, tmp_path):
    (tmp_path / "text.onnx").write_text("no model")
    (tmp_path / "empty.onnx").touch()
    for word, said in (
        (checkpoints("ptc"), "is a detector"),
        ("identity", "changes nothing"),
        (tmp_path / "text.onnx", "is not a model that nrh export made"),
        (tmp_path / "empty.onnx", "is not a model that nrh export made"),
        (tmp_path / "none.onnx", "no exported model"),
        (tmp_path / "none", "no checkpoint"),
    ):
        with pytest.raises(UserError, match=said) as raised:
            open_network(word)
        assert "\n" not in str(raised.value)


def test_a_foreign_onnx_file_is_refused(tmp_path):
    import onnx as library

    one = library.helper.make_tensor_value_info("x", library.TensorProto.FLOAT, [1])
    two = library.helper.make_tensor_value_info("y", library.TensorProto.FLOAT, [1])
    node = library.helper.make_node("Identity", ["x"], ["y"])
    graph = library.helper.make_graph([node], "g", [one], [two])
    model = library.helper.make_model(graph, opset_imports=[library.helper.make_opsetid("", 18)], ir_version=8)
    library.save(model, tmp_path / "a.onnx")
    with pytest.raises(UserError, match="is not a model that nrh export made"):
        open_network(tmp_path / "a.onnx")


def test_a_damaged_checkpoint_is_refused(tmp_path):
    path = make_real_run(tmp_path, "run", "dih_nm")
    weights = path / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        open_network(path)


def test_values_that_are_not_finite_are_told(checkpoints):
    network = open_network(checkpoints("dih_nm"))
    with pytest.raises(UserError, match="not finite: choose another"):
        network(np.full((64, 64, 3), np.nan, np.float32))


def test_load_is_the_packages_own(checkpoints, exported):
    photo = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    found, light = nrh_dist.load(checkpoints("gated"))(photo), nrh_dist.load(str(exported("gated")[0]))(photo)
    assert found.shape == photo.shape and abs(found.astype(int) - light).max() <= 1
    with pytest.raises(AttributeError, match="no attribute 'unload'"):
        nrh_dist.unload  # noqa: B018


def test_an_exported_folder_is_a_checkpoint(checkpoints, tmp_path):
    out = export.export(checkpoints("gated"), [], tmp_path / "out", print)
    picture = np.random.default_rng(0).random((64, 64, 3), dtype=np.float32)
    assert (open_network(out)(picture).image == open_network(checkpoints("gated"))(picture).image).all()


def test_the_light_path_imports_little(exported, tmp_path):
    """With torch, Ray and W&B not to be had at all, on the command line."""
    array = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "a.png")
    code = (
        "import sys\n"
        "heavy = ('torch', 'torchvision', 'ray', 'wandb', 'lpips', 'pyarrow', 'pandas', 'scipy', 'matplotlib')\n"
        "for name in heavy: sys.modules[name] = None\n"
        "from nrh_dist import cli\n"
        "cli.main(sys.argv[1:])\n"
    )
    words = ["harmonise", "a.png", "-o", "out", "--checkpoint", str(exported("gated")[0]), "--compare", "--save-mask"]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(tmp_path / "out")) == ["a-compare.jpg", "a-mask.png", "a.png"]


def test_the_last_choice_is_remembered_while_it_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("NRH_CACHE", str(tmp_path / "cache"))
    assert chosen.last() is None
    (tmp_path / "run").mkdir()
    chosen.note(tmp_path / "run")
    assert chosen.last() == tmp_path / "run"
    (tmp_path / "run").rmdir()
    assert chosen.last() is None
    (tmp_path / "cache" / chosen.FILE).write_text("{")
    assert chosen.last() is None
    monkeypatch.setenv("NRH_CACHE", "/proc/none")
    chosen.note(tmp_path)
