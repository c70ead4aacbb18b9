import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from trees import HEIGHT, WIDTH, make_tree, many

from nrh_dist.data import packing
from nrh_dist.data import rows as rows_module
from nrh_dist.data import samples as samples_module
from nrh_dist.data.layouts import Source, index
from nrh_dist.data.pack import Pack, cached_pack, check, distinct_objects, listed, open_pack, write_pack
from nrh_dist.data.samples import Sample
from nrh_dist.errors import UserError

FILES = ["composites.u8", "masks.u8", "pack.json", "reals.u8", "sources.txt"]


def silent(line: str) -> None:
    pass


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "CHUNK", 4)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    named = {
        "HCOCO": {"train": many(14), "test": many(6, first=11)},  # the photos c6 and c7 are in both
        "Hday2night": {"train": ["d90000014-8_12_1.jpg", "d90000014-9_12_1.jpg"], "test": ["d5-1_1_1.jpg"]},
    }
    return make_tree(tmp_path / "root", named)


@pytest.fixture
def samples(root: Path) -> list[Sample]:
    return index(Source(root))


def content(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_rows_are_the_resized_files_in_the_order_of_the_samples(samples: list[Sample], tmp_path: Path) -> None:
    pack = write_pack(samples, tmp_path / "pack", 8, 1, silent)
    assert len(pack) == len(samples) == 23
    assert pack.names == [s.name for s in samples] and pack.groups == [s.group for s in samples]
    assert pack.datasets == [s.dataset for s in samples] and pack.splits == [s.split for s in samples]
    assert pack.composites.shape == pack.reals.shape == (23, 8, 8, 3) and pack.masks.shape == (23, 8, 8)
    for row, sample in enumerate(samples):
        for packed, path in ((pack.composites, sample.composite), (pack.reals, sample.real)):
            assert np.array_equal(packed[row], np.asarray(Image.open(path).resize((8, 8), Image.Resampling.BICUBIC)))
        mask = Image.open(sample.mask)
        assert np.array_equal(pack.masks[row], np.asarray(mask.resize((8, 8), Image.Resampling.BOX)))
        assert pack.area_fractions[row] == np.count_nonzero(np.asarray(mask) >= 128) / (WIDTH * HEIGHT)
    assert sorted([*pack.rows("train"), *pack.rows("test")]) == list(range(23))
    assert {pack.splits[row] for row in pack.rows("test")} == {"test"} and len(pack.rows("test")) == 7


def test_manifest(samples: list[Sample], tmp_path: Path) -> None:
    write_pack(samples, tmp_path / "pack", 8, 1, silent)
    manifest = json.loads((tmp_path / "pack/pack.json").read_text())
    assert (manifest["schema"], manifest["size"], manifest["count"]) == (1, 8, 23)
    assert "BICUBIC" in manifest["resize"] and "BOX" in manifest["resize"]
    for name, expected in manifest["sha256"].items():
        assert hashlib.sha256((tmp_path / "pack" / name).read_bytes()).hexdigest() == expected
    assert sorted(content(tmp_path / "pack")) == FILES
    assert str(tmp_path) not in (tmp_path / "pack/pack.json").read_text(), "a pack does not depend on its place"


def test_one_and_two_workers_write_the_same_bytes(samples: list[Sample], tmp_path: Path) -> None:
    one = write_pack(samples, tmp_path / "one", 8, 1, silent)
    two = write_pack(samples, tmp_path / "two", 8, 2, silent)
    assert content(one.root) == content(two.root) and one.digest == two.digest


def test_each_file_is_decoded_once(samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: Counter[Path] = Counter()

    def counting(read: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        def wrapped(path: Path, *options: int) -> np.ndarray:
            decoded[path] += 1
            return read(path, *options)

        return wrapped

    monkeypatch.setattr(rows_module, "read_rgb", counting(rows_module.read_rgb))
    monkeypatch.setattr(samples_module, "read_mask", counting(samples_module.read_mask))
    write_pack(samples, tmp_path / "pack", 8, 1, silent)
    listed_twice = {s.composite for s in samples if s.split == "train"} & {
        s.composite for s in samples if s.split == "test"
    }
    others = {path for s in samples for path in (s.real, s.mask, s.composite)} - listed_twice
    assert {decoded[path] for path in others} == {1}
    assert decoded.keys() == others | listed_twice


SCRIPT = """
import sys, time
from pathlib import Path
from nrh_dist.data import packing
from nrh_dist.data.layouts import Source, index
from nrh_dist.data.pack import cached_pack, write_pack

def say(line):
    print(line, flush=True)
    if line.startswith(sys.argv[4]):
        time.sleep(600)

if __name__ == "__main__":
    packing.CHUNK = 4
    print("ready", flush=True)
    if sys.argv[2] == "cache":
        print(cached_pack(Source(Path(sys.argv[1])), 8, say, workers=1).digest)
    else:
        write_pack(index(Source(Path(sys.argv[1]))), sys.argv[2], 8, int(sys.argv[3]), say)
"""


def start(tmp_path: Path, *words: str) -> subprocess.Popen:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "script.py", *words]
    return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_attempt_continues_to_the_same_bytes(samples: list[Sample], tmp_path: Path, workers: int) -> None:
    undisturbed = write_pack(samples, tmp_path / "undisturbed", 8, 1, silent)
    with start(tmp_path, "root", "pack", str(workers), "packed 8") as process:
        assert process.stdout is not None
        assert "packed 8 of 23 samples\n" in iter(process.stdout.readline, "")
        process.kill()
    assert process.returncode == -signal.SIGKILL
    wait_for_end_of_group(process.pid)
    assert not (tmp_path / "pack").exists() and (tmp_path / "pack.partial").exists()
    lines: list[str] = []
    pack = write_pack(samples, tmp_path / "pack", 8, workers, lines.append)
    assert lines[0] == "continuing: 8 of 23 samples are packed already"
    assert content(pack.root) == content(undisturbed.root)
    assert not (tmp_path / "pack.partial").exists()


def wait_for_end_of_group(group: int) -> None:
    """No process of a killed parent may stay behind."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.killpg(group, signal.SIGKILL)
    raise AssertionError("worker processes outlived their parent")


def test_killed_between_the_last_row_and_the_new_name(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = write_pack(samples, tmp_path / "undisturbed", 8, 1, silent)

    def no_rename(old: Path, new: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("nrh_dist.data.pack.os.rename", no_rename)
        write_pack(samples, tmp_path / "pack", 8, 1, silent)
    assert content(write_pack(samples, tmp_path / "pack", 8, 1, silent).root) == content(undisturbed.root)


def test_progress_on_files_that_changed_is_not_kept(root: Path, tmp_path: Path) -> None:
    bad = root / "HCOCO/masks/c5_9001.png"
    good = bad.read_bytes()
    bad.write_bytes(good[:-40])
    with pytest.raises(UserError, match=r"c5_9001\.png: is truncated; nrh data verify"):
        write_pack(index(Source(root)), tmp_path / "pack", 8, 1, silent)
    assert not (tmp_path / "pack").exists()
    bad.write_bytes(good)
    Image.new("RGB", (WIDTH, HEIGHT), "red").save(root / "HCOCO/real_images/c1.jpg")
    lines: list[str] = []
    pack = write_pack(index(Source(root)), tmp_path / "pack", 8, 1, lines.append)
    assert lines[0] == "continuing: 4 of 23 samples are packed already"  # c3 and c4; c1 changed, c5 was bad
    assert content(pack.root) == content(write_pack(index(Source(root)), tmp_path / "fresh", 8, 1, silent).root)


def test_progress_without_its_rows_is_forgotten(samples: list[Sample], root: Path, tmp_path: Path) -> None:
    bad = root / "HCOCO/composite_images/c5_9001_0.jpg"
    good = bad.read_bytes()
    bad.write_bytes(b"")
    with pytest.raises(UserError, match="is empty"):
        write_pack(samples, tmp_path / "pack", 8, 1, silent)
    bad.write_bytes(good)
    (tmp_path / "pack.partial/reals.u8").unlink()
    pack = write_pack(samples, tmp_path / "pack", 8, 1, silent)
    assert (
        content(pack.root)["reals.u8"]
        == content(write_pack(samples, tmp_path / "fresh", 8, 1, silent).root)["reals.u8"]
    )


def test_progress_on_other_samples_is_forgotten(samples: list[Sample], root: Path, tmp_path: Path) -> None:
    (root / "HCOCO/composite_images/c4_9001_1.jpg").write_bytes(b"")
    for order in (samples, samples[::-1], samples):
        with pytest.raises(UserError, match="is empty"):
            write_pack(order, tmp_path / "pack", 8, 1, silent)
    Image.new("RGB", (WIDTH, HEIGHT)).save(root / "HCOCO/composite_images/c4_9001_1.jpg")
    pack = write_pack(samples, tmp_path / "pack", 8, 1, silent)
    assert content(pack.root) == content(write_pack(samples, tmp_path / "fresh", 8, 1, silent).root)


def test_files_of_different_sizes_are_refused(root: Path, tmp_path: Path) -> None:
    Image.new("RGB", (5, 5)).save(root / "HCOCO/composite_images/c4_9001_1.jpg")
    with pytest.raises(UserError, match=r"c4_9001_1\.jpg: is 5x5 pixels, but its real photo c4\.jpg is 24x16"):
        write_pack(index(Source(root)), tmp_path / "pack", 8, 1, silent)


def test_a_destination_with_something_in_it(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "pack"
    out.mkdir()
    digest = write_pack(samples, out, 8, 1, silent).digest  # an empty folder is taken
    with monkeypatch.context() as patch:
        patch.setattr(rows_module, "read_rgb", None)  # the same pack is returned without reading a photo
        assert write_pack(samples, out, 8, 1, silent).digest == digest
    for other, size in ((samples[1:], 8), (samples, 16)):
        with pytest.raises(UserError, match=r"already holds another pack \(23 samples at size 8\)"):
            write_pack(other, out, size, 1, silent)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").touch()
    with pytest.raises(UserError, match="is not a pack; choose a new folder"):
        write_pack(samples, tmp_path / "mine", 8, 1, silent)
    with pytest.raises(UserError, match="nothing to pack"):
        write_pack([], tmp_path / "new", 8, 1, silent)


def test_too_little_space_is_said_before_anything_is_written(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nrh_dist.data.pack.shutil.disk_usage", lambda path: SimpleNamespace(free=10_000))
    with pytest.raises(UserError, match=r"needs 1\.05e-05 GB, but .* has 1e-05 GB free"):
        write_pack(samples, tmp_path / "new/pack", 8, 1, silent)
    assert not (tmp_path / "new").exists()


def test_a_disk_that_fills_up_is_a_user_error_and_the_next_attempt_continues(
    samples: list[Sample], tmp_path: Path
) -> None:
    code = (
        "import resource\nfrom pathlib import Path\nfrom nrh_dist.data.layouts import Source, index\n"
        "from nrh_dist.data.pack import write_pack\nresource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "write_pack(index(Source(Path('root'))), 'pack', 8, 1, print)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert "UserError: cannot write pack: File too large" in done.stderr
    assert not (tmp_path / "pack").exists()
    check(write_pack(samples, tmp_path / "pack", 8, 1, silent).root)


def test_a_damaged_pack_is_refused(samples: list[Sample], tmp_path: Path) -> None:
    path = write_pack(samples, tmp_path / "pack", 8, 1, silent).root
    check(path)
    with open(path / "reals.u8", "r+b") as file:
        file.seek(1000)
        byte = file.read(1)[0]
        file.seek(1000)
        file.write(bytes([byte ^ 1]))
    open_pack(path)
    with pytest.raises(UserError, match=r"reals\.u8 is damaged"):
        check(path)
    os.truncate(path / "masks.u8", 100)
    with pytest.raises(UserError, match=r"masks\.u8 has 100 bytes instead of 1472"):
        open_pack(path)


def test_a_bad_manifest_is_refused(samples: list[Sample], tmp_path: Path) -> None:
    path = write_pack(samples, tmp_path / "pack", 8, 1, silent).root
    text = (path / "pack.json").read_text()
    for altered, message in [
        (text.replace("c1_9001_0", "c1_9001_7"), "was altered"),
        (text.replace('"schema": 1', '"schema": 2'), "has schema 2, this version reads 1"),
        (text[:-20], "cannot be read"),
        ("[]", "has schema None"),
    ]:
        (path / "pack.json").write_text(altered)
        with pytest.raises(UserError, match=message):
            open_pack(path)
    (path / "pack.json").unlink()
    with pytest.raises(UserError, match="is not a finished pack"):
        open_pack(path)


def test_cache_is_filled_once_and_anew_when_the_data_changes(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NRH_CACHE", str(tmp_path / "cache"))
    lines: list[str] = []
    first = cached_pack(Source(root), 8, lines.append)
    assert first.root.parent == tmp_path / "cache" and str(first.root) in lines[0] and "23 samples" in lines[0]
    assert cached_pack(Source(root), 8, pytest.fail).root == first.root
    assert cached_pack(Source(root), 16, silent).root != first.root
    assert cached_pack(Source(first.root), 8, pytest.fail).digest == first.digest, "a pack is its own root"
    with pytest.raises(UserError, match=r"is packed at size 8, not 16: set data\.size=8"):
        cached_pack(Source(first.root), 16, silent)
    os.utime(root / "HCOCO/masks/c1_9001.png", (1, 1))
    second = cached_pack(Source(root), 8, silent)
    assert second.root != first.root and second.digest == first.digest, "other times, the same images"


def test_cache_keeps_its_progress_over_a_mended_image(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NRH_CACHE", str(tmp_path / "cache"))
    bad = root / "HCOCO/composite_images/c5_9001_0.jpg"
    bad.write_bytes(b"")
    with pytest.raises(UserError, match=r"c5_9001_0\.jpg: is empty"):
        cached_pack(Source(root), 8, silent)
    Image.new("RGB", (WIDTH, HEIGHT)).save(bad)
    lines: list[str] = []
    check(cached_pack(Source(root), 8, lines.append).root)
    assert "continuing: 8 of 23 samples are packed already" in lines
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [cached_pack(Source(root), 8, silent).root.name]


def test_two_processes_may_ask_for_the_same_cache_at_once(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NRH_CACHE", str(tmp_path / "cache"))
    processes = [start(tmp_path, "root", "cache", "1", "never") for _ in range(3)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sum("packed 23 of 23" in output for output in outputs) == 1, outputs
    assert len({output.splitlines()[-1] for output in outputs}) == 1
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_one_who_waits_finds_the_pack_of_the_other(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait itself: the first holds the lock until the second has said that it waits."""
    with start(tmp_path, "root", "pack", "1", "packed 8") as first:
        assert first.stdout is not None
        assert "packed 8 of 23 samples\n" in iter(first.stdout.readline, "")
        with start(tmp_path, "root", "pack", "1", "never") as second:
            assert second.stdout is not None
            assert any("waiting for it" in line for line in iter(second.stdout.readline, ""))
            first.kill()
            assert second.wait(60) == 0
    check(tmp_path / "pack")


def test_the_lock_of_a_folder_that_others_rename_away(tmp_path: Path) -> None:
    finished: list[Path] = []

    def make(name: str) -> None:
        with packing.locked(tmp_path / "partial", silent):
            assert [path.name for path in (tmp_path / "partial").iterdir()] == ["lock"]
            finished.append((tmp_path / "partial").rename(tmp_path / name))

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(make, map(str, range(400)))) == [None] * 400
    assert len(finished) == 400 and not (tmp_path / "partial").exists()
    (tmp_path / "link").symlink_to(tmp_path / "missing")
    with pytest.raises(FileExistsError), packing.locked(tmp_path / "link", silent):
        pass


def test_the_photos_at_hand_can_be_packed(tmp_path: Path) -> None:
    if "NRH_TEST_DATA" not in os.environ:
        pytest.skip("NRH_TEST_DATA is not set")
    samples = index(Source(Path(os.environ["NRH_TEST_DATA"]) / "iharmony4-mini"))
    pack: Pack = write_pack(samples, tmp_path / "pack", 64, 1, silent)
    assert (len(pack), len(pack.rows("train")), len(pack.rows("test"))) == (133, 110, 23)
    outside = np.asarray(pack.masks) == 0
    difference = np.abs(pack.composites.astype(int) - pack.reals).mean(axis=-1)
    assert difference[~outside].mean() > 3 * difference[outside].mean(), "composites differ inside the mask"


def test_an_object_comes_once_however_many_composites_show_it(tmp_path: Path) -> None:
    names = ["c1_1_1.jpg", "c1_1_2.jpg", "c1_2_1.jpg", "c2_1_1.jpg"]
    root = make_tree(tmp_path / "root", {"HCOCO": {"train": names}, "COCOExp": {"train": ["c1_1_1.jpg"]}})
    pack = write_pack(index(Source(root)), tmp_path / "pack", 8, 1, silent)
    rows = distinct_objects(pack, np.arange(len(pack)))
    assert [(pack.datasets[row], pack.names[row]) for row in rows] == [
        ("COCOExp", "c1_1_1"),
        ("HCOCO", "c1_1_1"),
        ("HCOCO", "c1_2_1"),
        ("HCOCO", "c2_1_1"),
    ]
    assert len(distinct_objects(pack, np.array([], dtype=int))) == 0


# What happens to files of ``root``, whose photos have two composites each, and what that costs.
BAD = {
    "HCOCO/composite_images/c1_9001_1.jpg": lambda path: path.write_bytes(path.read_bytes()[:300]),
    "HCOCO/composite_images/c3_9001_0.jpg": lambda path: path.write_bytes(b""),
    "HCOCO/real_images/c5.jpg": lambda path: path.write_text("<html>404 Not Found</html>"),
    "HCOCO/masks/c8_9001.png": lambda path: Image.new("L", (5, 5)).save(path),
    "Hday2night/composite_images/d5-1_1_1.jpg": Path.unlink,
}
GONE = {
    "HCOCO/c1_9001_1": "c1_9001_1.jpg: is truncated",
    "HCOCO/c3_9001_0": "c3_9001_0.jpg: is empty (0 bytes)",
    "HCOCO/c5_9001_0": "c5.jpg: is not a JPEG or PNG image",
    "HCOCO/c5_9001_1": "c5.jpg: is not a JPEG or PNG image",
    "HCOCO/c8_9001_0": "c8_9001.png: is 5x5 pixels, but its real photo c8.jpg is 24x16",
    "HCOCO/c8_9001_1": "c8_9001.png: is 5x5 pixels, but its real photo c8.jpg is 24x16",
    "Hday2night/d5-1_1_1": "d5-1_1_1.jpg: is missing",
}


@pytest.fixture
def sound(samples: list[Sample], tmp_path: Path) -> Pack:
    """The pack of all samples, before anything happened to them."""
    return write_pack(samples, tmp_path / "sound", 8, 1, silent)


@pytest.fixture
def bad_root(root: Path, sound: Pack) -> Path:
    for name, spoil in BAD.items():
        spoil(root / name)
    return root


def images_of(pack: Pack) -> dict[tuple[str, str, str], bytes]:
    return {
        (pack.datasets[row], pack.splits[row], pack.names[row]): b"".join(
            np.asarray(values[row]).tobytes() for values in (pack.composites, pack.reals, pack.masks)
        )
        + np.float64(pack.area_fractions[row]).tobytes()
        for row in range(len(pack))
    }


def test_bad_files_are_left_out_named_and_counted(bad_root: Path, sound: Pack, tmp_path: Path) -> None:
    lines: list[str] = []
    samples = listed(Source(bad_root), 5)
    pack = write_pack(samples, tmp_path / "pack", 8, 1, lines.append, 5)
    check(pack.root)
    assert dict(pack.skipped) == GONE and len(pack) == 23 - len(pack.skipped)
    for name, reason in pack.skipped:
        assert f"left out: {name}, for {reason}" in lines
    assert "left out 7 of 23 samples, for 5 files that cannot be used" in lines
    expected = images_of(sound)
    for dataset, split, name in list(expected):
        if f"{dataset}/{name}" in GONE:
            del expected[dataset, split, name]
    assert images_of(pack) == expected
    assert [pack.groups[row] for row in range(16)] == [
        next(one.group for one in samples if (one.dataset, one.name) == (pack.datasets[row], pack.names[row]))
        for row in range(16)
    ]
    assert str(tmp_path) not in (pack.root / "pack.json").read_text(), "a pack does not depend on its place"
    two = write_pack(samples, tmp_path / "two", 8, 2, silent, 99)
    assert content(two.root) == content(pack.root) and sorted(content(pack.root)) == FILES


def test_more_bad_files_than_allowed_end_it_and_more_patience_continues(bad_root: Path, tmp_path: Path) -> None:
    samples = listed(Source(bad_root), 1)
    with pytest.raises(UserError, match=r"3 files cannot be used, above the limit of 2 bad files.*nrh data verify"):
        write_pack(samples, tmp_path / "pack", 8, 1, silent, 2)
    assert not (tmp_path / "pack").exists()
    with pytest.raises(UserError, match=r"3 files cannot be used, above the limit of 1 bad"):  # known from before
        write_pack(samples, tmp_path / "pack", 8, 1, silent, 1)
    lines: list[str] = []
    pack = write_pack(samples, tmp_path / "pack", 8, 1, lines.append, 5)
    assert lines[0] == "continuing: 13 of 23 samples are packed already"
    assert "left out 7 of 23 samples, for 5 files that cannot be used" in lines
    assert content(pack.root) == content(write_pack(samples, tmp_path / "fresh", 8, 1, silent, 5).root)


@pytest.mark.parametrize("finished", [0, 1, 2, 4])
def test_killed_while_the_gaps_are_filled(
    bad_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: int
) -> None:
    """The gaps of so many of the four files were filled, of the next one in part."""
    samples = listed(Source(bad_root), 5)
    undisturbed = write_pack(samples, tmp_path / "undisturbed", 8, 1, silent, 5)
    fill_gaps = packing._fill_gaps

    def killed(lengths: dict[Path, int], total: int, left_out: list[packing.LeftOut]) -> None:
        fill_gaps(dict(list(lengths.items())[:finished]), total, left_out)
        for path, one in list(lengths.items())[finished : finished + 1]:
            with open(path, "r+b") as file:
                kept = packing.kept_rows(total, left_out)
                gap = next(gap for gap, row in enumerate(kept) if gap != row)
                file.seek(kept[gap] * one)
                content_of_last = file.read(one)
                file.seek(gap * one)
                file.write(content_of_last)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(packing, "_fill_gaps", killed)
        write_pack(samples, tmp_path / "pack", 8, 1, silent, 5)
    lines: list[str] = []
    pack = write_pack(samples, tmp_path / "pack", 8, 1, lines.append, 5)
    assert lines[0] == "continuing: 23 of 23 samples are packed already"
    assert content(pack.root) == content(undisturbed.root)


def test_progress_with_gaps_is_none_where_no_bad_file_is_allowed(bad_root: Path, tmp_path: Path) -> None:
    samples = listed(Source(bad_root), 1)
    with pytest.raises(UserError, match="above the limit of 2"):
        write_pack(samples, tmp_path / "pack", 8, 1, silent, 2)
    with pytest.raises(UserError, match=r"c1_9001_1\.jpg: is truncated; nrh data verify lists all"):
        write_pack(samples, tmp_path / "pack", 8, 1, silent)


def test_a_pack_with_less_than_all_is_for_those_who_allow_it(
    bad_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NRH_CACHE", str(tmp_path / "cache"))
    (bad_root / "Hday2night/composite_images/d5-1_1_1.jpg").write_bytes(b"")  # a missing one has no pack without skip
    pack = cached_pack(Source(bad_root), 8, silent, max_bad_files=5)
    assert cached_pack(Source(bad_root), 8, pytest.fail, max_bad_files=6).digest == pack.digest
    for allowed in (0, 4):
        with pytest.raises(
            UserError,
            match=rf"was packed without 7 samples, for 5 bad files, and {allowed} are allowed; "
            r"the first is HCOCO/c1_9001_1, for c1_9001_1\.jpg: is truncated: mend them",
        ):
            cached_pack(Source(bad_root), 8, silent, max_bad_files=allowed)
    with pytest.raises(UserError, match="and 0 are allowed"):
        write_pack(index(Source(bad_root)), pack.root, 8, 1, silent)


def test_a_pack_without_gaps_serves_those_who_would_allow_some(root: Path, tmp_path: Path) -> None:
    pack = write_pack(index(Source(root)), tmp_path / "pack", 8, 1, silent)
    assert write_pack(listed(Source(root), 9), tmp_path / "pack", 8, 1, pytest.fail, 9).digest == pack.digest
    assert "skipped" not in json.loads((pack.root / "pack.json").read_text())


def test_nothing_left_is_no_pack(root: Path, tmp_path: Path) -> None:
    for path in root.glob("*/real_images/*"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="none of the 23 samples can be packed"):
        write_pack(index(Source(root)), tmp_path / "pack", 8, 1, silent, 99)


def test_a_bad_list_is_not_a_bad_image(root: Path) -> None:
    with (root / "HCOCO/HCOCO_train.txt").open("a") as file:
        file.write("../../etc/passwd.jpg\n")
    with pytest.raises(UserError, match="leaves the data folder"):
        listed(Source(root), 9)


def test_the_command_line_leaves_bad_files_out(bad_root: Path, tmp_path: Path) -> None:
    words = ["data", "pack", str(bad_root), str(tmp_path / "pack"), "--size", "64", "--workers", "1"]
    command = [sys.executable, "-c", "from nrh_dist.cli import main; main()", *words]
    done = subprocess.run([*command, "--skip-bad", "4"], capture_output=True, text=True)
    assert done.returncode == 1 and "above the limit of 4 bad files" in done.stderr + done.stdout
    subprocess.run([*command, "--skip-bad", "5"], check=True, capture_output=True)
    assert len(open_pack(tmp_path / "pack")) == 16
