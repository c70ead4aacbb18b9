"""The folder of an evaluation: it appears whole, and neither an earlier one nor what was scored is lost on the way."""

import errno
import io
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from nrh_dist.engine.shards import DONE, FILES
from nrh_dist.errors import UserError
from nrh_dist.launch import scoring, session

SUMMARY = json.dumps({"schema": 1, "checkpoints": []})


def make(out: Path, text: str = "new") -> None:
    """What an evaluation does, its one chunk scored already."""
    with scoring.staged(out) as folder:
        for name in FILES:
            (folder / name).write_text("0 0 0\n")
        (folder / "summary.json").write_text(SUMMARY)
        (folder / "per_image.csv").write_text(text)


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    make(tmp_path / "e", "old")
    return tmp_path / "e"


def test_an_earlier_evaluation_is_replaced_and_its_wandb_runs_are_kept(earlier: Path) -> None:
    (earlier / "wandb" / "offline-run-1-x").mkdir(parents=True)
    (earlier / "strips").mkdir()
    make(earlier)
    assert written(earlier) == ["per_image.csv", "summary.json", "wandb"]
    assert written(earlier / "wandb") == ["offline-run-1-x"] and (earlier / "per_image.csv").read_text() == "new"
    assert written(earlier.parent) == ["e"]


@pytest.mark.parametrize("way", ["a link", "the folder itself", "read-only"])
def test_out_may_be(way: str, earlier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = earlier
    if way == "a link":
        out = tmp_path / "link"
        out.symlink_to(earlier)
    elif way == "the folder itself":
        monkeypatch.chdir(earlier)
        out = Path()
    else:
        (earlier / "summary.json").chmod(0o400)
    make(out)
    assert (tmp_path / "e" / "per_image.csv").read_text() == "new"
    assert written(tmp_path) == (["e", "link"] if way == "a link" else ["e"])


def test_files_of_others_are_not_deleted(earlier: Path) -> None:
    for name in ("thesis.tex", "report"):
        (earlier / name).mkdir()
        with pytest.raises(UserError, match=f"holds {name}, which no evaluation wrote: move it"):
            make(earlier)
        (earlier / name).rmdir()
    (earlier / "summary.json").write_text('{"of": "another program"}')
    with pytest.raises(UserError, match="exists and is no evaluation"):
        make(earlier)
    assert (earlier / "per_image.csv").read_text() == "old" and written(earlier.parent) == ["e"]


def test_a_mount_point_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "ismount", lambda path: path == tmp_path / "e")
    with pytest.raises(UserError, match="is a mount point"), scoring.staged(tmp_path / "e"):
        pytest.fail("work began")
    assert not written(tmp_path)


@pytest.mark.parametrize("step", [1, 2])
def test_what_was_scored_outlives_a_failure_to_take_the_name(
    step: int, earlier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the earlier folder cannot step aside or the new one cannot take its place."""
    rename, calls = os.rename, []

    def fail(one: Path, other: Path) -> None:
        calls.append(one)
        if len(calls) == step:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(one), None, str(other))
        rename(one, other)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(UserError, match=r"^cannot write .*/e: Device or resource busy; mend that"):
        make(earlier)
    monkeypatch.undo()
    assert (earlier / "per_image.csv").read_text() == "old"
    partial = earlier.with_name(".e.partial")
    assert written(partial) == [".lock", *sorted(FILES)] and written(earlier.parent) == [".e.partial", "e"]
    make(earlier)
    assert (earlier / "per_image.csv").read_text() == "new" and written(earlier.parent) == ["e"]


@pytest.mark.parametrize("killed", ["between the two names", "while the earlier one was deleted"])
def test_a_kill_at_the_end_costs_nothing(killed: str, earlier: Path) -> None:
    aside = earlier.with_name(".e.earlier")
    (earlier / "wandb").mkdir()
    earlier.rename(aside)
    if killed == "while the earlier one was deleted":
        shutil.copytree(aside, earlier, ignore=shutil.ignore_patterns("wandb"))
        for name in (".lock", DONE):
            (earlier / name).touch()
    make(earlier)
    assert written(earlier) == ["per_image.csv", "summary.json", "wandb"] and written(earlier.parent) == ["e"]


def test_an_earlier_one_that_cannot_be_deleted_is_told_before_any_work(
    earlier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path / "strips"))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    make(earlier)
    assert (earlier / "per_image.csv").read_text() == "new" and written(earlier.parent) == [".e.earlier", "e"]
    with pytest.raises(UserError, match=r"^.*/\.e\.earlier/strips: Permission denied; mend"):
        make(earlier)


@pytest.mark.parametrize(("file", "says"), [("{partial}/x.csv", "cannot write {out}"), ("/data/a.png", "/data/a.png")])
def test_an_error_names_the_file_where_it_is_another(file: str, says: str, tmp_path: Path) -> None:
    out = tmp_path / "e"
    with pytest.raises(UserError) as raised, scoring.staged(out) as partial:
        raise OSError(errno.ENOSPC, "No space left on device", file.format(partial=partial))
    assert str(raised.value).startswith(f"{says.format(out=out)}: No space left on device; mend that")


def test_csv_files_are_utf_8_whatever_the_locale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io, "text_encoding", lambda encoding, *_: encoding or "latin-1")
    scoring.write_csv(tmp_path / "a.csv", ["name"], [{"name": "größe"}])
    assert (tmp_path / "a.csv").read_bytes() == "name\ngröße\n".encode()


@pytest.mark.parametrize("actors", [1, 2, 7])
@pytest.mark.parametrize("count", [0, 1, 3, 32, 64, 625])
def test_items_of_work_get_shorter_towards_the_end(count: int, actors: int) -> None:
    items = scoring.items_of(range(100, 100 + count), actors)
    assert [chunk for item in items for chunk in item] == list(range(100, 100 + count))
    lengths = [len(item) for item in items]
    assert lengths == sorted(lengths, reverse=True) and all(1 <= length <= 8 for length in lengths)
    assert lengths[-2 * actors :] == [1] * min(count, 2 * actors), "what is in flight at the end"


@pytest.mark.parametrize(("gpus", "share"), [(0, 0.0), (2, 0.5)])
def test_each_actor_reserves_its_part_of_a_gpu(gpus: int, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three actors on two GPUs: two of them share one."""
    import ray

    asked: list[dict[str, float]] = []
    monkeypatch.setattr(session, "resources", lambda: {"CPU": 4.0, "GPU": float(gpus)})
    monkeypatch.setattr(ray, "remote", lambda **options: asked.append(options) or (lambda kind: kind))
    monkeypatch.setattr(scoring, "Pool", lambda start, count, say: count)
    pack = SimpleNamespace(root=Path("pack"))
    assert scoring.open_pool(print, pack, [], 3, print) == 3  # type: ignore[arg-type, comparison-overlap]
    assert asked == [{"num_cpus": 1, "num_gpus": share}]
