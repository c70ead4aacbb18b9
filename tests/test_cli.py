"""What a user reads: one clear line and exit code 1 for each mistake, help with an example on every verb."""

import shutil
from pathlib import Path

import pytest
from choices import make_real_run
from packs import write_small_pack, write_tree

from nrh_dist import cli
from nrh_dist.engine import checkpoint, chosen
from nrh_dist.launch.evaluate import Options
from nrh_dist.workflows.harmonise import Wishes
from nrh_dist.workflows.study.data import Photos


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_small_pack(tmp_path_factory.mktemp("cli"), train=12)


def nrh(capsys, *words: str) -> tuple[int, str, str]:
    """Exit code, output and error output of ``nrh WORDS``."""
    with pytest.raises(SystemExit) as caught:
        cli.main(list(words))
    captured = capsys.readouterr()
    return caught.value.code, captured.out, captured.err


def mistake(capsys, *words: str) -> str:
    """The one line that ``nrh WORDS`` says, given that it exits with 1."""
    code, _, err = nrh(capsys, *words)
    assert code == 1
    assert err.count("\n") == 1 and err.startswith("nrh: "), err
    return err


SPACE = Path(__file__).parents[1] / "search_spaces" / "demo.yaml"
VERBS = [
    [*group, one.name or one.callback.__name__.replace("_", "-")]
    for group, table in (((), cli.app), (("data",), cli.data), (("track",), cli.track))
    for one in table.registered_commands
]


def test_all_verbs_are_known():
    assert len(VERBS) == 22 and ["harmonise"] in VERBS and ["data", "coco-exp"] in VERBS


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_has_help_with_an_example(capsys, verb):
    code, out, _ = nrh(capsys, *verb, "--help")
    assert code == 0 and f"Example: nrh {' '.join(verb)}" in " ".join(out.split())


def test_no_words_is_help(capsys):
    code, out, _ = nrh(capsys, "--help")
    assert code == 0 and "doctor" in out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("trian", "Did you mean 'train'"),
        ("train model.nmae=x", "Did you mean: 'name'"),
        ("train model.name=x", "ptc_att_dih"),
        ("train scale.workers=0 data.pack=PACK", "at least 1"),
        ("train scale.workers=64 preset=tiny data.pack=PACK", "64 workers need 64 CPUs"),
        ("tune SPACE scale.workers=64 data.pack=PACK", "64 workers need 64 CPUs"),
        ("evaluate identity --data PACK --out e --actors 64", "64 actors need 64 CPUs"),
        ("train", "no data"),
        ("train data.root=none", "none"),
        ("train data.pack=none", "none"),
        ("train data.pack=PACK", "data.size=64"),
        ("train --config none.yaml", "no configuration file"),
        ("train preset=tiny data.pack=PACK model.detector_weights=none", "no checkpoint"),
        ("pretrain preset=tiny data.pack=PACK", "which stage"),
        ("pretrain stage=sleep", "equivariance"),
        ("train storage=s3://${oc.env:NO_SUCH_VARIABLE}/x", "NO_SUCH_VARIABLE"),
        ("data pack none p --size 100", "64, 128, 256"),
        ("data pack none p --size 64 --workers 0", "--workers"),
        ("demo --out /proc/nrh", "/proc/nrh: No such file or directory; mend that"),
        ("tune none.yaml", "no readable search-space file"),
        ("evaluate none --data PACK --out e", "no checkpoint, run or sweep"),
        ("evaluate identity --out e", "--data"),
        ("evaluate identity --data none --out e", "none"),
        ("evaluate identity --data PACK --out e --actors 0", "--actors"),
        ("best none", "no folder"),
        ("best .", "no checkpoint with values and no evaluation below ."),
        ("report none --out r", "none"),
        ("data verify none", "none"),
        ("data pack none p", "none"),
        ("data coco-exp --images none --annotations none.json --out c", "none"),
    ],
)
def test_mistakes(capsys, tmp_path, monkeypatch, pack, words, expected):
    monkeypatch.chdir(tmp_path)
    assert expected in mistake(capsys, *words.replace("PACK", str(pack.root)).replace("SPACE", str(SPACE)).split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "place", "expected"),
    [
        (
            "harmonise a -o o --strength 0.5 --mask m --strip --checkpoint c",
            "workflows.harmonise.harmonise",
            ([Path("a")], Path("o"), "c", Wishes(0.5, Path("m"), strip=True)),
        ),
        (
            "harmonise a -o o --save-mask --compare --force",
            "workflows.harmonise.harmonise",
            ([Path("a")], Path("o"), None, Wishes(save_mask=True, compare=True, force=True)),
        ),
        (
            "harmonise a -o o --skip-existing",
            "workflows.harmonise.harmonise",
            ([Path("a")], Path("o"), None, Wishes(skip=True)),
        ),
        (
            "calibrate c -o o --data d --most-worse 0.1",
            "workflows.calibrate.calibrate",
            ("c", Path("o"), cli.say, "d", 0.1),
        ),
        (
            "evaluate c --data d -o o --split val --actors 2 --thresholds t",
            "workflows.evaluate.evaluate",
            (["c"], "d", "o", Options("val", 2, None, Path("t"))),
        ),
        (
            "evaluate c --data d -o o --annotations a --psnr-peaks --paste-background",
            "workflows.evaluate.evaluate",
            (["c"], "d", "o", Options(annotations=Path("a"), peaks=True, paste=True)),
        ),
        (
            "data coco-exp --images i --annotations a -o o --split val --val-fraction 0.2 --method hist --channels lab",
            "workflows.coco_exp.make",
            (Path("i"), Path("a"), Path("o"), 1000, 0, "hist", "lab", "jpeg", "val", 1, cli.say, 0.2),
        ),
        (
            "study --coco c --photos p --photos q --budget 5 -o o train.epochs=2",
            "workflows.study.study.study",
            (Path("o"), Photos(Path("c"), (Path("p"), Path("q"))), 5.0, ["train.epochs=2"]),
        ),
    ],
)
def test_options_reach_what_they_are_for(monkeypatch, words, place, expected):
    given = []
    monkeypatch.setattr(f"nrh_dist.{place}", lambda *words: given.extend(words) or Path("made"))
    monkeypatch.setattr("nrh_dist.engine.chosen.note", lambda path: None)
    with pytest.raises(SystemExit) as ended:
        cli.main(words.split())
    assert ended.value.code == 0 and given[: len(expected)] == [*expected]


def test_a_file_without_a_stage_is_asked_for_one(capsys, tmp_path):
    (tmp_path / "config.yaml").write_text("preset: tiny\n")
    assert "which stage" in mistake(capsys, "pretrain", "--config", str(tmp_path / "config.yaml"))


def test_what_is_called_like_an_exported_file_is_no_folder(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = make_real_run(tmp_path / "runs", "run", "dih_nm")
    said = mistake(capsys, "export", str(path), "--format", "safetensors", "-o", "model.onnx")
    assert "model.onnx would be a folder" in said and not Path("model.onnx").exists()


def test_an_exported_detector_is_not_what_harmonises_next(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("NRH_CACHE", str(tmp_path / "cache"))
    harmoniser = make_real_run(tmp_path / "runs", "one", "dih_nm")
    detector = make_real_run(tmp_path / "runs", "two", "ptc", "stage=thresholds")
    for path, out in ((harmoniser, "one"), (detector, "two")):
        assert nrh(capsys, "export", str(path), "--format", "safetensors", "-o", str(tmp_path / out))[0] == 0
    assert chosen.last() == tmp_path / "one"


def test_empty_list_and_corrupt_image(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree = write_tree(Path("tree"), train=4, test=2)
    for split in ("train", "test"):
        (tree / "Sample" / f"Sample_{split}.txt").write_text("")
    assert "tree" in mistake(capsys, "train", "preset=tiny", "data.root=tree")
    shutil.rmtree(tree)
    write_tree(tree, train=4, test=2)
    victim = tree / "Sample" / "composite_images" / "s0_0_1.png"
    victim.write_bytes(victim.read_bytes()[:200])
    assert "s0_0_1.png" in mistake(capsys, "train", "preset=tiny", "data.root=tree")
    code, out, _ = nrh(capsys, "data", "verify", "tree")
    assert code == 1 and "s0_0_1.png" in out
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


def test_wrong_checkpoint_is_refused_with_the_reason(capsys, tmp_path, monkeypatch, pack):
    monkeypatch.chdir(tmp_path)
    meta = {"epoch": 1, "step": 1, "model": {"name": "dih_nm", "width": 0.25}, "size": 64, "stage": "harmonisation"}
    path = str(checkpoint.save(tmp_path / "c", {}, {}, meta))
    said = mistake(
        capsys, "train", "preset=tiny", f"data.pack={pack.root}", f"model.detector_weights={path}", "model.name=ptc_dih"
    )
    assert "is a dih_nm checkpoint: ptc_dih takes a ptc there" in said
    assert not (tmp_path / "runs").exists()


def test_identity_of_a_folder_in_use_and_another_configuration(capsys, tmp_path, monkeypatch, pack):
    from nrh_dist import config
    from nrh_dist.engine import rundir

    monkeypatch.chdir(tmp_path)
    words = ["preset=tiny", f"data.pack={pack.root}", "run.name=mine", "model.name=dih_nm"]
    with rundir.claimed(config.load(None, words)):
        assert "is in use" in mistake(capsys, "train", *words)
    assert "optim.lr: 0.001 -> 0.1" in mistake(capsys, "train", *words, "optim.lr=0.1")
