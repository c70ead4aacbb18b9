"""``nrh harmonise``: names, what is never overwritten, odd and bad files, models that do not fit."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import photo_files
import pytest
import pyvips
from choices import make_real_run
from networks import brighter, harmoniser, idle
from PIL import Image

from nrh_dist import cli
from nrh_dist.engine import chosen
from nrh_dist.engine.network import IMAGE
from nrh_dist.engine.predict import read_mask_of
from nrh_dist.errors import UserError
from nrh_dist.photo import writing
from nrh_dist.photo.image import open_photo
from nrh_dist.workflows import harmonise as module
from nrh_dist.workflows.harmonise import Wishes, harmonise


@pytest.fixture
def run(tmp_path, monkeypatch):
    """``run(words, out, model=..., **wishes)`` in a folder of its own: whether all went well, and what was said."""
    monkeypatch.chdir(tmp_path)

    def run(words, out="out", model=None, **wishes):
        said = []
        monkeypatch.setattr(module, "load", lambda _: model or brighter())
        words = [tmp_path / word for word in words]
        well = harmonise(words, tmp_path / out, "a model", Wishes(**wishes), said.append)
        return well, said

    return run


def photo(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    format = {".jpg": "jpeg", ".png": "png", ".tif": "tiff", ".webp": "webp"}[path.suffix.lower()]
    return photo_files.write(path, format, photo_files.picture(seed=seed))


def found(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_folders_keep_their_names_and_the_rest_is_left_alone(tmp_path, run):
    for name in ("in/a.jpg", "in/deep/er/b.PNG", "in/deep/c.tif", "in/.hidden/d.png", "in/.e.png"):
        photo(tmp_path / name)
    for name in ("in/notes.txt", "in/deep/x.GIF", "in/y.gif", "in/README", "in/.z.gif"):
        (tmp_path / name).write_text("no photo")
    well, (others, *said) = run(["in"])
    assert others == f"{tmp_path}/in: not taken for photos: 2 .gif, 1 without an extension, 1 .txt"
    assert well and found(tmp_path / "out") == ["a.jpg", "deep/c.tif", "deep/er/b.PNG"]
    assert said[-1] == "3 photos: 3 corrected, 0 left as they are, 0 with problems"
    assert all("corrected, " in line and " % of the photo changes" in line for line in said[:-1])


def test_results_within_the_folder_are_not_taken_for_photos(tmp_path, run):
    photo(tmp_path / "in/a.png")
    assert run(["in"], "in/out")[0]
    well, said = run(["in"], "in/out", force=True)
    assert well and len(said) == 1 and found(tmp_path / "in") == ["a.png", "out/a.png"]


def test_nothing_is_overwritten(tmp_path, run):
    photo(tmp_path / "a.png")
    photo(tmp_path / "b.png")
    assert run(["a.png"])[0]
    before = (tmp_path / "out/a.png").read_bytes()
    well, said = run(["a.png", "b.png"], model=brighter(by=0.1))
    assert not well and "out/a.png exists; --force replaces it, --skip-existing passes over it" in said[0]
    assert (tmp_path / "out/a.png").read_bytes() == before and found(tmp_path / "out") == ["a.png", "b.png"]
    assert run(["a.png"], model=brighter(by=0.1), force=True)[0]
    assert (tmp_path / "out/a.png").read_bytes() != before
    with pytest.raises(UserError, match="would be written over itself"):
        run(["a.png"], ".", force=True)


def test_what_is_there_is_passed_over_on_demand(tmp_path, run):
    for name in ("in/a.png", "in/b.png"):
        photo(tmp_path / name)
    assert run(["in/a.png"])[0]
    before = (tmp_path / "out/a.png").stat()
    well, said = run(["in"], skip=True)
    assert well and said[0] == "1 of 2 photos have their results: passed over" and len(said) == 2
    assert "b.png: corrected" in said[1] and (tmp_path / "out/a.png").stat() == before
    assert run(["in"], skip=True) == (True, ["2 of 2 photos have their results: passed over"])
    well, said = run(["in"], skip=True, compare=True)  # one of two files is not a result, and stays
    assert well and len(said) == 3 and (tmp_path / "out/a.png").stat() == before
    assert found(tmp_path / "out") == ["a-compare.jpg", "a.png", "b-compare.jpg", "b.png"]


def test_replacing_and_passing_over_is_not_possible(tmp_path, capsys):
    photo(tmp_path / "a.png")
    with pytest.raises(SystemExit) as ended:
        cli.main(["harmonise", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--force", "--skip-existing"])
    assert ended.value.code == 1 and "give one of them" in capsys.readouterr().err


def test_two_photos_of_one_name_are_refused_before_anything(tmp_path, run):
    for name in ("one/a.png", "two/a.png"):
        photo(tmp_path / name)
    with pytest.raises(UserError, match=r"one/a\.png and .*two/a\.png would both write .*out/a\.png: give"):
        run(["one/a.png", "two"])
    for name in ("in/b.png", "in/b-mask.png", "in/c.jpg", "in/c.png"):
        photo(tmp_path / name)
    for wishes, name in (({"save_mask": True}, "b-mask.png"), ({"compare": True}, "c-compare.jpg")):
        with pytest.raises(UserError, match=f"both write .*{name}"):
            run(["in"], force=True, **wishes)
    assert not (tmp_path / "out").exists()


def test_words_that_are_no_photos(tmp_path, run):
    (tmp_path / "empty").mkdir()
    for word, said in (("none.jpg", "there is no photo or folder at"), ("empty", "holds no photo")):
        with pytest.raises(UserError, match=said):
            run([word])
    photo(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"b\.png would be a folder"):
        run(["a.png"], "b.png")


def test_a_folder_that_may_not_be_looked_into_is_told(tmp_path, run, monkeypatch):
    photo(tmp_path / "in/deep/a.png")
    look = os.scandir

    def refused(place):
        if Path(place).name == "deep":
            raise PermissionError(13, "Permission denied", place)
        return look(place)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(UserError, match=r"cannot look into .*deep: Permission denied"):
        run(["in"])


def test_a_photo_in_which_nothing_is_found_is_the_same_file(tmp_path, run):
    path = photo(tmp_path / "a.jpg")
    well, (said,) = run(["a.jpg"], model=idle())
    assert well and "nothing that it would correct, the same file" in said
    assert (tmp_path / "out/a.jpg").read_bytes() == path.read_bytes()


def test_without_strength_or_place_it_is_the_same_file_too(tmp_path, run):
    path = photo(tmp_path / "a.jpg")
    Image.fromarray(np.zeros((64, 96), np.uint8)).save(tmp_path / "black.png")
    for wishes, expected in (
        ({"strength": 0.0}, "strength 0"),
        ({"mask": tmp_path / "black.png"}, "nothing that it would correct"),
    ):
        well, (said,) = run(["a.jpg"], force=True, **wishes)
        assert well and expected in said
        assert (tmp_path / "out/a.jpg").read_bytes() == path.read_bytes()


def test_the_share_that_changes_is_that_inside_the_mask(tmp_path, run):
    photo(tmp_path / "a.png")
    mask = np.zeros((64, 96), np.uint8)
    mask[:32] = 255
    Image.fromarray(mask).save(tmp_path / "upper.png")
    shares = []
    for wishes in ({}, {"mask": tmp_path / "upper.png"}):
        _, (said,) = run(["a.png"], force=True, model=brighter(16, 48, 0, 64), **wishes)
        shares.append(int(said.split("corrected, ")[1].split(" %")[0]))
    assert shares == [50, 25]


def test_what_is_made_beside(tmp_path, run):
    array = photo_files.picture(96, 64)
    photo_files.write(tmp_path / "a.tif", "tiff", photo_files.stored(array, 6), 6)
    assert run(["a.tif"], save_mask=True, compare=True)[0]
    assert found(tmp_path / "out") == ["a-compare.jpg", "a-mask.png", "a.tif"]
    with Image.open(tmp_path / "out/a-mask.png") as image:
        mask = np.asarray(image)
    assert mask.shape == (64, 96) and mask[20:44, 34:86].mean() > 200 and mask[:2].max() == 0
    with Image.open(tmp_path / "out/a-compare.jpg") as image:
        assert image.height == 64 and image.width == 3 * 96 + 2 * 12
        seen = np.asarray(image).astype(int)
    before, after, over = seen[:, :96], seen[:, 108:204], seen[:, 216:]
    assert (after - before)[24:40, 40:80].mean() > 25
    assert (over[24:40, 40:80, 0] - over[24:40, 40:80, 1]).mean() > 30, "red: it was too dark"


def test_wishes_that_a_model_cannot_grant(tmp_path, run):
    for name in ("a.png", "b.png"):
        photo(tmp_path / name)
    plain = harmoniser(lambda photo, _: {IMAGE: photo}, "dih_nm")
    with pytest.raises(UserError, match="dih_nm, which does not say what it found"):
        run(["a.png"], model=plain, save_mask=True)
    with pytest.raises(UserError, match="needs the object's mask"):
        run(["a.png"], model=brighter(name="dih_m"))
    with pytest.raises(UserError, match="is one mask, for 2 photos"):
        run(["a.png", "b.png"], mask=tmp_path / "a.png")
    assert not (tmp_path / "out").exists()


def test_masks_from_a_folder(tmp_path, run):
    for name in ("in/a.jpg", "in/deep/b.jpg", "in/c.jpg"):
        photo(tmp_path / name)
    mask = np.zeros((64, 96), np.uint8)
    mask[:, 60:] = 255
    for name in ("masks/a.png", "masks/deep/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(tmp_path / name)
    Image.fromarray(mask.T.copy()).save(tmp_path / "masks/c.png")
    well, said = run(["in"], mask=tmp_path / "masks", model=brighter(name="dih_m"))
    assert not well and found(tmp_path / "out") == ["a.jpg", "deep/b.jpg"]
    assert "c.png: is 64x96 pixels, but its photo is 96x64" in said[1]


@pytest.mark.parametrize("kind", ["webp", "tif", "png"])
def test_a_mask_may_be_of_any_kind_that_photos_are(tmp_path, run, kind):
    photo(tmp_path / "a.png")
    for level, expected in ((255, "corrected, "), (0, "nothing that it would correct")):
        grey = Image.fromarray(np.full((64, 96), level, np.uint8))
        grey.convert("RGB").save(tmp_path / f"mask.{kind}", lossless=True)
        well, (said,) = run(["a.png"], mask=tmp_path / f"mask.{kind}", force=True)
        assert well and expected in said


def test_a_mask_of_colours_counts_by_lightness(tmp_path):
    photo(tmp_path / "a.png")
    colours = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    Image.fromarray(colours).save(tmp_path / "mask.png")
    read = read_mask_of(open_photo(tmp_path / "a.png"), tmp_path / "mask.png")
    assert abs(read.astype(int) - np.asarray(Image.fromarray(colours).convert("L"))).max() <= 1


def test_a_mask_with_transparent_parts_is_refused(tmp_path, run):
    photo(tmp_path / "a.png")
    Image.fromarray(np.full((64, 96, 4), 255, np.uint8)).save(tmp_path / "mask.png")
    well, (said,) = run(["a.png"], mask=tmp_path / "mask.png")
    assert not well and "transparent parts, which say nothing of a mask" in said


def test_names_that_are_no_text(tmp_path, capsys):
    """As old archives and cameras leave them: Latin-1 where UTF-8 is expected."""
    (tmp_path / "in").mkdir()
    name = os.fsencode(tmp_path) + b"/in/caf\xe9.png"
    photo(tmp_path / "a.png").rename(os.fsdecode(name))
    photo(tmp_path / "in/b.png")
    path = make_real_run(tmp_path / "runs", "run", "dih_nm")
    words = [str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--checkpoint", str(path), "--compare"]
    with pytest.raises(SystemExit) as ended:
        cli.main(["harmonise", *words])
    said = capsys.readouterr().out
    assert (
        ended.value.code == 1 and r"caf\udce9.png: has a name that is not UTF-8" in said and "b.png: corrected" in said
    )
    words[2] = os.fsdecode(os.fsencode(tmp_path) + b"/\xe9")
    with pytest.raises(SystemExit) as ended:
        cli.main(["harmonise", *words])
    assert ended.value.code == 1 and r"\udce9 is not UTF-8: give another name" in capsys.readouterr().err


def test_what_the_system_refuses_is_one_line(tmp_path, run):
    """A name that fits, and that with -compare.jpg does not."""
    photo(tmp_path / ("in/" + 246 * "a" + ".png"))
    photo(tmp_path / "in/b.png")
    well, said = run(["in"], compare=True)
    assert not well and "File name too long" in said[0] and "b.png: corrected" in said[1]


def odd_files(folder):
    """Files that can be used, though few programs write them."""
    array, image = photo_files.picture(), Image.fromarray(photo_files.picture())
    image.convert("P").save(folder / "palette.png")
    image.convert("1").save(folder / "one-bit.png")
    image.convert("1").save(folder / "one-bit.tif")
    image.convert("L").save(folder / "grey.jpg")
    image.convert("LA").save(folder / "grey-alpha.png")
    image.convert("CMYK").save(folder / "inks.jpg")
    image.convert("CMYK").save(folder / "inks.tif")
    image.convert("YCbCr").save(folder / "ycc.tif")
    image.save(folder / "progressive.jpg", progressive=True)
    image.save(folder / "coarse.jpg", quality=1)
    image.save(folder / "lossy.webp", quality=30)
    image.save(folder / "jpeg-in.tif", compression="jpeg")
    image.save(folder / "png-called.jpg", "PNG")
    image.save(folder / "jpeg-called.png", "JPEG")
    image.save(folder / "no icc.jpg", icc_profile=b"x" * 200)
    image.resize((1, 1)).save(folder / "one-pixel.png")
    image.resize((3000, 2)).save(folder / "thin.png")
    photo_files.write_16_bits(folder / "deep.png", photo_files.picture(most=65535))
    photo_files.write_16_bits(folder / "deep-grey.tif", photo_files.picture(most=65535)[..., 0])
    image.save(folder / "ünï çödé 照片.jpg")
    image.save(folder / "-o.jpg")
    (folder / "behind.jpg").write_bytes((folder / "grey.jpg").read_bytes() + b"garbage" * 99)
    exif = photo_files.exif(1)
    exif[274] = 77
    image.save(folder / "orientation-77.jpg", exif=exif)
    assert array.any()


def bad_files(folder):
    """Files that cannot be used."""
    image = Image.fromarray(photo_files.picture())
    whole = {}
    for suffix, format in (("jpg", "JPEG"), ("png", "PNG"), ("tif", "TIFF"), ("webp", "WEBP")):
        image.save(folder / f"whole.{suffix}", format)
        content = whole[suffix] = (folder / f"whole.{suffix}").read_bytes()
        (folder / f"whole.{suffix}").unlink()
        (folder / f"half.{suffix}").write_bytes(content[: len(content) // 2])
        (folder / f"head.{suffix}").write_bytes(content[:20])
        (folder / f"empty.{suffix}").touch()
        (folder / f"noise.{suffix}").write_bytes(content[:12] + os.urandom(3000))
    (folder / "text.jpg").write_text("no photo")
    (folder / "page.png").write_text("<html></html>")
    (folder / "vector.png").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    image.save(folder / "bitmap.jpg", "BMP")
    image.save(folder / "moving.webp", save_all=True, append_images=[image.rotate(90)])
    image.save(folder / "moving.png", save_all=True, append_images=[image.rotate(90)])
    image.save(folder / "pages.tif", save_all=True, append_images=[image])
    Image.fromarray(np.float32(photo_files.picture()[..., 0])).save(folder / "float.tif")
    photo_files.bomb(folder / "bomb.png")
    os.mkfifo(folder / "pipe.fifo")
    (folder / "dangling.jpg").symlink_to(folder / "nowhere.jpg")


def test_forty_kinds_of_odd_and_bad_files(tmp_path, run):
    """The odd ones come out, the bad ones get a line each, and nothing else is written."""
    (tmp_path / "odd").mkdir()
    (tmp_path / "bad").mkdir()
    odd_files(tmp_path / "odd")
    bad_files(tmp_path / "bad")
    names = found(tmp_path / "odd")
    well, said = run(["odd"], model=brighter(0, 64, 0, 64))
    assert well, said
    assert found(tmp_path / "out") == names and len(names) >= 22
    for name in names:
        with Image.open(tmp_path / "odd" / name) as before, Image.open(tmp_path / "out" / name) as after:
            assert after.size == before.size and after.format == before.format, name
    well, (others, *said) = run(["bad"], "none")
    assert others.endswith("bad: not taken for photos: 1 .fifo")
    photos = [name for name in sorted(os.listdir(tmp_path / "bad")) if not name.endswith(".fifo")]
    assert not well and len(said) == len(photos) + 1 and len(photos) + len(names) >= 40
    for name, line in zip(photos, said[:-1], strict=True):
        assert line.startswith(str(tmp_path / "bad" / name) + ": ") and "\n" not in line, line
    assert said[-1].startswith(f"{len(photos)} photos: 0 corrected, 0 left as they are, {len(photos)} with problems")
    assert found(tmp_path / "none") == []


def test_a_folder_that_cannot_be_written_to(tmp_path, run):
    photo(tmp_path / "a.png")
    (tmp_path / "file").touch()
    well, (said,) = run(["a.png"], "file/out")
    assert not well and "cannot make" in said


def test_a_disk_that_takes_nothing_is_not_the_photos_fault(tmp_path, run, monkeypatch):
    photo(tmp_path / "a.png")

    def full(*_):
        raise pyvips.Error("vips2png: unable to write to target a.png")

    monkeypatch.setattr(writing, "_encode", full)
    well, (said,) = run(["a.png"])
    assert not well and "out/a.png: cannot be written, as on a full disk: vips2png" in said
    monkeypatch.setattr(Path, "touch", lambda *_: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
    well, (said,) = run(["a.png"])
    assert not well and said.endswith("out/a.png: cannot be written: Read-only file system")
    assert found(tmp_path / "out") == []


def test_a_signal_lets_the_photo_at_hand_be_finished(tmp_path):
    """Sent while libvips is at work, whose callbacks would swallow the exception of Ctrl-C."""
    checkpoint = make_real_run(tmp_path / "runs", "run", "dih_nm")
    (tmp_path / "in").mkdir()
    photo_files.write(tmp_path / "in/00.jpg", "jpeg", photo_files.picture(3000, 2000))
    for number in range(1, 12):
        shutil.copy(tmp_path / "in/00.jpg", tmp_path / f"in/{number:02}.jpg")
    for number, out in ((signal.SIGINT, "one"), (signal.SIGTERM, "two")):
        words = ["harmonise", str(tmp_path / "in"), "-o", str(tmp_path / out), "--checkpoint", str(checkpoint)]
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "nrh_dist", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert "corrected" in process.stdout.readline()
        while process.poll() is None and not [*(tmp_path / out).glob(".*")]:  # what is being written of the next one
            time.sleep(0.002)
        process.send_signal(number)
        said, problem = process.communicate(timeout=60)
        done = len(found(tmp_path / out))
        assert process.returncode == 1 and 1 < done < 12, said
        left = f"{12 - done} photos are left, from {tmp_path}/in/{done:02}.jpg on"
        assert problem == f"nrh: interrupted: {left}; --skip-existing goes on there\n"
        assert found(tmp_path / out) == [f"{number:02}.jpg" for number in range(done)]


def test_the_last_choice_is_used_where_none_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NRH_CACHE", str(tmp_path / "cache"))
    photo(tmp_path / "a.png")
    words = ["harmonise", str(tmp_path / "a.png"), "-o", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    said = capsys.readouterr().err
    assert ended.value.code == 1 and "no checkpoint is known here" in said and "nrh best" in said
    make_real_run(tmp_path / "runs", "chosen-one", "dih_nm")
    with pytest.raises(SystemExit) as ended:
        cli.main(["best", str(tmp_path / "runs")])
    assert ended.value.code == 0 and chosen.last() is not None
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    said = capsys.readouterr().out
    assert ended.value.code == 0 and "chosen-one" in said and "which was chosen last" in said


def test_a_bad_photo_ends_the_verb_with_1(tmp_path, capsys):
    path = make_real_run(tmp_path / "runs", "run", "dih_nm")
    photo(tmp_path / "in/a.png")
    (tmp_path / "in/b.png").touch()
    with pytest.raises(SystemExit) as ended:
        cli.main(["harmonise", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--checkpoint", str(path)])
    assert ended.value.code == 1 and found(tmp_path / "out") == ["a.png"]
    assert "b.png: is empty (0 bytes)" in capsys.readouterr().out


def test_real_photos(tmp_path, real_photos, run):
    """Triplets and photos of a data set, at their own sizes."""
    (tmp_path / "in").mkdir()
    for number, path in enumerate(sorted((real_photos / "triplets").glob("*-composite.png"))):
        shutil.copy(path, tmp_path / "in" / f"t{number}.png")
    for path in sorted((real_photos / "iharmony4-mini").rglob("composite_images/*"))[:6]:
        shutil.copy(path, tmp_path / "in" / path.name)
    well, said = run(["in"])
    assert well and len(found(tmp_path / "out")) == 9, said


LARGE = """
import resource, sys
sys.path[:0] = {tests!r}
import networks
from pathlib import Path
from nrh_dist.engine import predict
from nrh_dist.photo.image import open_photo
model = networks.{model}
photo = open_photo(Path({source!r}))
predict.write(photo, model.look(photo), Path({out!r}))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize("model", ["brighter(name='ptc_dih', size=256)", "gated(0.2, 0.1, size=256)"])
@pytest.mark.parametrize("kind", ["a.jpg", "a.png", "deep.tif", "turned.jpg"])
def test_a_hundred_megapixels_fit_into_two_gigabytes(tmp_path, model, kind):
    import pyvips

    levels = photo_files.picture(1000, 1000, most=65535 if kind == "deep.tif" else 255)
    large = pyvips.Image.new_from_array(levels).resize(10, kernel="nearest")
    if kind == "turned.jpg":
        large.set_type(pyvips.GValue.gint_type, "orientation", 6)
    large.write_to_file(str(tmp_path / kind))
    tests = [str(path) for path in (os.path.dirname(os.path.dirname(__file__)),)]
    code = LARGE.format(tests=tests, model=model, source=str(tmp_path / kind), out=str(tmp_path / f"out-{kind}"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(kind, model, int(done.stdout) / 1024)
    assert int(done.stdout) / 1024 < 2048
