import json

import pytest
from packs import write_small_pack
from tracked import EPOCHS, KEY, epochs, records, train, wait_for_the_end, wandb_folders
from wandb_server import WandbServer

from nrh_dist import config
from nrh_dist.data.pack import open_pack
from nrh_dist.engine import track
from nrh_dist.engine.files import write_lines

ROW = {"epoch": 1, "step": 3, "val/mse": 4.0}


def test_rows_of_epochs_done_again_are_replaced(tmp_path):
    for epoch in (1, 2, 3):
        track.append_row(tmp_path, {"epoch": epoch, "step": epoch})
    track.append_row(tmp_path, {"epoch": 2, "step": 20})
    assert [row["step"] for row in track.rows_up_to(tmp_path, 9)] == [1, 20]
    track.drop_rows_after(tmp_path, 1)
    assert [row["epoch"] for row in track.rows_up_to(tmp_path, 9)] == [1]


def test_lines_cut_off_by_a_crash_or_damaged_are_left_out(tmp_path):
    lines = [json.dumps(ROW).encode(), b"\xff\x00", b"null", b'{"fpoch": 2}', json.dumps({**ROW, "epoch": 3}).encode()]
    (tmp_path / track.METRICS).write_bytes(b"\n".join([*lines, b'{"epoch": 4, "st']))
    assert track.rows_up_to(tmp_path, 9) == [ROW, {**ROW, "epoch": 3}]


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    track.append_row(tmp_path, ROW)
    (tmp_path / track.METRICS).rename(tmp_path / "rows")
    (tmp_path / track.METRICS).mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        write_lines(tmp_path / track.METRICS, [ROW])
    assert sorted(path.name for path in tmp_path.iterdir()) == [track.METRICS, "rows"]


@pytest.mark.parametrize(
    ("environment", "key", "asked", "expected"),
    [
        ("", "", "online", "offline"),
        ("", "secret", "online", "online"),
        ("", "", "offline", "offline"),
        ("disabled", "secret", "online", "disabled"),
        ("offline", "secret", "disabled", "offline"),
    ],
)
def test_mode(monkeypatch, tmp_path, environment, key, asked, expected):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in (("WANDB_MODE", environment), ("WANDB_API_KEY", key)):
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    assert track.wandb_mode(config.load(None, [f"track.wandb={asked}"])) == expected


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_small_pack(tmp_path_factory.mktemp("track")).root


@pytest.fixture(scope="module")
def untracked(pack, tmp_path_factory):
    """What training gives without a tracker."""
    return train(pack, tmp_path_factory.mktemp("untracked"), "disabled").result()


def test_a_key_is_found_where_its_server_is_named(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "NETRC", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not track.has_key()
    (tmp_path / ".netrc").write_text("machine wandb.example.org login user password x")
    assert not track.has_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org:8080/")
    assert track.has_key()
    monkeypatch.setenv("NETRC", str(tmp_path / "elsewhere"))
    assert not track.has_key()


@pytest.mark.slow
def test_a_resumed_run_continues_its_run_also_offline(pack, untracked, tmp_path):
    """Killed after the second epoch: two folders of W&B with one id, which together hold each epoch once."""
    train(pack, tmp_path, "offline", "track.group=my-sweep", "track.strip_epochs=2", killed_after=2)
    wait_for_the_end(str(tmp_path))
    trained = train(pack, tmp_path, "offline", "track.group=my-sweep", "track.strip_epochs=2")
    wait_for_the_end(str(tmp_path))
    assert trained.result() == untracked
    parts = wandb_folders(trained.folder)
    assert [epochs(part) for part in parts] == [[1, 2], [3]]
    shown = [one for part in parts for one in records(part, "history")]
    assert [one["step"]["num"] for one in shown] == [1, 2, 3]
    assert [one["item"].get("samples.count") for one in shown] == [None, 4, 4]
    begun = [records(part, "run")[0] for part in parts]
    assert len({one["run_id"] for one in begun}) == 1
    assert [one["run_group"] for one in begun] == ["my-sweep"] * 2
    assert begun[0]["config"]["update"]["optim"]["lr"] == 0.001
    for part in parts:
        (metric,) = records(part, "metric")
        assert (metric["glob_name"], metric["step_metric"]) == ("*", "epoch")
        data, best = records(part, "artifact")
        assert data["use_after_commit"] and [one["path"] for one in data["manifest"]["contents"]] == ["pack.json"]
        assert sorted(best["aliases"]) == ["best", "latest"] and not best.get("use_after_commit")
    assert_clean(trained.folder)


def test_everything_comes_to_a_server_and_training_is_the_same(pack, untracked, tmp_path):
    with WandbServer() as server:
        words = ("track.artifacts=all", "track.strip_epochs=1")
        trained = train(pack, tmp_path, "online", *words, url=server.url, breaks_at="running")
        requests, store = list(server.requests), server.store
    assert trained.result() == untracked
    (created, *_) = [text for _, text in requests if "mutation UpsertBucket" in text]
    assert json.loads(created)["variables"]["groupName"] == "dih_nm"
    run = store.runs[track.stable_id(trained.folder)]
    assert [row["epoch"] for row in run["history"]] == [1, 2, 3]
    (used,), made = [store.artifacts[i] for i in run["used"]], [store.artifacts[i] for i in run["made"]]
    assert used["name"] == f"pack-{open_pack(pack).digest[:12]}" and used["files"] == ["pack.json"]
    best = int(untracked[1].split("-")[1])
    expected = [{"best"} if epoch == best else set() for epoch in (1, 2, 3)]
    expected[-1].add("latest")
    assert [one["aliases"] for one in made] == expected
    assert all(len(one["files"]) == 4 and one["state"] == "COMMITTED" for one in (*made,))
    assert sum("samples" in name for name in store.uploads) == 4 * EPOCHS
    (folder,) = wandb_folders(trained.folder)
    assert not list((folder.parent / track.KEPT).rglob("*.*")) and list(folder.glob("*.synced"))
    assert_clean(trained.folder)


FAULTS = ("refuse", "silent", "error", "text", "truncated")
FAST = (("refuse", "running"), ("error", "finish"))


@pytest.mark.parametrize(
    ("fault", "breaks_at"),
    [
        pytest.param(fault, breaks_at, marks=[] if (fault, breaks_at) in FAST else pytest.mark.slow)
        for fault in FAULTS
        for breaks_at in ("init", "running", "finish")
    ],
)
def test_whatever_the_server_does_training_is_the_same(pack, untracked, tmp_path, fault, breaks_at):
    """Losses and weights to the bit; nothing waits; the end comes soon; the key is in no file; no process stays."""
    with WandbServer(fault, breaks_at) as server:
        trained = train(pack, tmp_path, "online", "track.artifacts=all", url=server.url, breaks_at=breaks_at)
        assert server.broken.is_set()
    times = f"opened in {trained.opening:.3f} s, a row held {trained.held:.3f} s, the end took {trained.finish:.1f} s"
    print(f"{fault} at {breaks_at}: {times}")
    assert trained.result() == untracked
    assert trained.opening < 3 and trained.held < 1 and trained.finish < 8 + 1
    wait_for_the_end(server.url)
    if breaks_at == "init":
        assert "W&B does not answer (" in trained.output and "tracked offline" in trained.output
        assert epochs(next((trained.folder / "wandb").glob("offline-run-*"))) == [1, 2, 3]
    else:
        assert epochs(next((trained.folder / "wandb").glob("run-*"))) == [1, 2, 3]
    assert_clean(trained.folder)


def test_strips_that_cannot_be_made_are_said_once(pack, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    said: list[str] = []
    tracker = opened(tmp_path, pack, said.append, "track.strip_epochs=1")

    def draw():
        raise RuntimeError("out of memory\non this GPU")

    tracker.log(ROW, draw)
    tracker.log({**ROW, "epoch": 2}, draw)
    tracker.finish()
    assert said == ["no more image strips: RuntimeError: out of memory"]
    assert epochs(wandb_folders(tmp_path)[0]) == [1, 2]


def test_rows_from_before_w_and_b_was_asked_for_come_too(pack, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    track.append_row(tmp_path, ROW)
    for epoch in (2, 3):  # the second is a resume, to which W&B has the rows before
        tracker = opened(tmp_path, pack, print)
        tracker.log({**ROW, "epoch": epoch}, list)
        tracker.finish()
        track.append_row(tmp_path, {**ROW, "epoch": epoch})
    assert [epochs(run) for run in wandb_folders(tmp_path)] == [[1, 2], [3]]


def test_a_checkpoint_that_is_gone_costs_its_artifact_only(pack, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    said: list[str] = []
    tracker = opened(tmp_path, pack, said.append, "track.artifacts=all")
    tracker.log(ROW, list)
    tracker.finish()
    (run,) = wandb_folders(tmp_path)
    assert epochs(run) == [1] and len(records(run, "artifact")) == 1  # the pack's
    assert len(said) == 1 and "left out checkpoint-" in said[0]


def opened(folder, pack, say, *words):
    """A tracker whose end has all the time that it takes."""
    return track.open_tracker(config.load(None, ["track.finish_seconds=60", *words]), folder, open_pack(pack), say)


def assert_clean(folder):
    """The key is in no file."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
