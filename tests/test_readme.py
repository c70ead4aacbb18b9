"""Every command of the README is run; those of a cloud or of the paper's size are parsed and validated."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from choices import make_real_run

from nrh_dist import config
from nrh_dist.launch import space

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = [
    shlex.split(line, comments=True)
    for block in re.findall(r"```sh\n(.*?)```", README, re.S)
    for line in block.splitlines()
    if line.strip()
]
FULL_SIZE = ("/data/", "$NRH_STORAGE")  # stand for data that is not here


def is_full_size(words: list[str]) -> bool:
    return words[:2] == ["ray", "submit"] or any(place in word for place in FULL_SIZE for word in words)


def is_local(words: list[str]) -> bool:
    return words[0] in ("nrh", "torchrun") and not is_full_size(words)


@pytest.mark.slow
def test_the_commands_in_order(tmp_path, ray_session):
    """In a fresh folder, one after the other, as a reader would, but on one Ray for all, which saves its starts."""
    import ray

    (tmp_path / "search_spaces").symlink_to(ROOT / "search_spaces")
    binaries = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "NRH_CACHE": str(tmp_path / "cache"),
        "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
    }
    ran = 0
    for words in filter(is_local, COMMANDS):
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
        ran += 1
    assert ran >= 12
    assert (tmp_path / "report" / "index.html").exists()
    sweep = tmp_path / "runs" / "demo"
    assert all((sweep / name).exists() for name in ("index.html", "study.db", "figures"))


def verb_of(words: list[str]) -> list[str]:
    """The nrh words of a command that is not run here."""
    return words[words.index("--") + 1 :] if words[0] == "ray" else words[1:]


@pytest.mark.parametrize(
    "words",
    [words for words in COMMANDS if is_full_size(words)],
    ids=lambda words: " ".join(words),
)
def test_full_size_commands_are_valid(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    if words[0] == "ray":
        assert words[1] == "submit" and yaml.safe_load(Path(words[2]).read_text())["cluster_name"]
        assert Path(words[3]) == Path("cluster/job.py")
    verb, *rest = verb_of(words)
    if verb == "doctor":
        assert rest == ["--cluster", "auto"]
    elif verb == "train":
        config.load(None, rest)
    elif verb == "study":
        assert rest[::2] == ["--coco", "--photos", "--budget"] and float(rest[5])
    elif verb == "evaluate":
        assert rest[1::2] == ["--data", "--out", "--actors"]
        assert all(word.startswith("$NRH_STORAGE/") for word in rest[:6:2])
    else:
        assert verb == "tune"
        space.read(Path(rest[0]), [word for word in rest[1:] if not word.startswith("--")])


def test_no_command_is_of_a_kind_that_nobody_checks():
    for words in COMMANDS:
        known = is_local(words) or is_full_size(words)
        made = words[0] == "make" and f"\n{words[1]}: setup" in (ROOT / "Makefile").read_text()
        plain = made or words[:2] == ["ray", "get-auth-token"]
        cluster = words[:2] in (["ray", "up"], ["ray", "down"]) and (ROOT / words[-1]).exists()
        assert known or plain or cluster, words


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://github.com/") or (ROOT / target).exists(), target


def test_the_python_of_the_readme_runs(tmp_path):
    """With a run in the place of the exported model."""
    (block,) = re.findall(r"```python\n(.*?)```", README, re.S)
    (word,) = re.findall(r'nrh_dist\.load\("(.+?)"\)', block)
    photo = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    known = {"photo": photo}
    exec(block.replace(word, str(make_real_run(tmp_path, "run", "gated"))), known)
    assert known["output"].shape == photo.shape and known["output"].dtype == photo.dtype
