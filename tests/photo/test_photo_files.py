"""Photos in, photos out: what is promised to stay does, to the bit where bits can stay."""

import io

import cv2
import numpy as np
import photo_files
import pytest
import pyvips
from networks import SIZE, brighter, idle
from PIL import Image, ImageCms, ImageOps

from nrh_dist.data.images import ImageProblem, resize_photo
from nrh_dist.engine import predict
from nrh_dist.photo import image as module
from nrh_dist.photo import metadata, writing
from nrh_dist.photo.image import open_photo


def harmonised(path, out, model=None, **more):
    photo = open_photo(path)
    found = (model or brighter()).look(photo)
    predict.write(photo, found, out, **more)
    return photo, found


def unchanged(photo, out):
    """Encoded anew with no change."""
    writing.write(photo, lambda colours: colours * 0, out)


def upright(path):
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


@pytest.mark.parametrize("format", photo_files.EXTENSIONS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_change_is_where_it_belongs_and_the_orientation_stays(tmp_path, format, orientation):
    """An upright box of a camera held in any of eight ways; outside of it, pixels stay as they are."""
    looked_at = photo_files.picture(96, 64)
    path = tmp_path / f"photo.{photo_files.EXTENSIONS[format]}"
    photo_files.write(path, format, photo_files.stored(looked_at, orientation), orientation)
    photo, _ = harmonised(path, tmp_path / "out", brighter(16, 48, 20, 60))
    assert photo.orientation == orientation and photo.upright_size == (96, 64)
    before, after = upright(path).astype(int), upright(tmp_path / "out").astype(int)
    inside, outside = np.s_[20:44, 34:86], (np.s_[:2], np.s_[:, :8])
    assert abs((after - before)[inside].mean() - 0.15 * 255) < 4
    for far in outside:
        assert abs(after - before)[far].mean() <= (2 if format == "jpeg" else 0)
    with Image.open(path) as source, Image.open(tmp_path / "out") as made:
        assert made.size == source.size and made.format == source.format
        assert made.getexif()[274] == orientation and made.getexif()[271] == "Maker"


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("shape", [(64, 96), (64, 96, 3), (64, 96, 4)])
def test_16_bits_stay_16_bits(tmp_path, suffix, shape):
    levels = photo_files.picture(96, 64, channels=3, most=65535)
    array = {2: levels[..., 0], 3: levels}[len(shape)]
    if shape[-1] == 4:
        array = np.concatenate([levels, levels[..., :1] // 2], axis=-1)
    path = photo_files.write_16_bits(tmp_path / f"a.{suffix}", array)
    photo, _ = harmonised(path, tmp_path / f"out.{suffix}")
    assert (photo.depth, photo.has_alpha) == (16, shape[-1] == 4)
    found = photo_files.read_16_bits(tmp_path / f"out.{suffix}")
    assert found.dtype == np.uint16 and found.shape == array.shape
    assert (found[:2] == array[:2]).all() and (found[20:44, 34:86] != array[20:44, 34:86]).any()
    if shape[-1] == 4:
        assert (found[..., 3] == array[..., 3]).all()
    unchanged(photo, tmp_path / f"same.{suffix}")
    assert (photo_files.read_16_bits(tmp_path / f"same.{suffix}") == array).all()


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA"])
@pytest.mark.parametrize("format", ["png", "tiff", "webp"])
def test_alpha_and_grey_stay(tmp_path, mode, format):
    if format == "webp" and mode != "RGBA":
        pytest.skip("WebP has no grey")
    array = photo_files.picture(96, 64)
    alpha = np.tile(np.arange(96, dtype=np.uint8), (64, 1))
    image = Image.fromarray(array).convert(mode)
    if "A" in mode:
        image.putalpha(Image.fromarray(alpha))
    path, out = tmp_path / "a", tmp_path / "b"
    image.save(path, format.upper(), **({"lossless": True, "exact": True} if format == "webp" else {}))
    harmonised(path, out)
    with Image.open(path) as before, Image.open(out) as after:
        assert after.mode == before.mode == mode
        assert (np.asarray(after) != np.asarray(before)).any()
        assert (np.asarray(after)[:2] == np.asarray(before)[:2]).all(), "hidden colours too"
        if "A" in mode:
            assert (np.asarray(after)[..., -1] == alpha).all()


@pytest.mark.parametrize("format", photo_files.EXTENSIONS)
def test_the_profile_stays_and_the_change_is_made_in_its_space(tmp_path, format):
    """A wide-gamut photo: seen in sRGB, the box is brighter by what the model asked for."""
    icc = photo_files.profile("p3")
    path, out = tmp_path / "a", tmp_path / "b"
    photo_files.write(path, format, photo_files.picture(96, 64), icc=icc)
    harmonised(path, out, brighter(by=0.2))
    seen = []
    for name in (path, out):
        with Image.open(name) as image:
            assert image.info["icc_profile"] == icc
            profiles = ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB")
            seen.append(np.asarray(ImageCms.profileToProfile(image.convert("RGB"), *profiles)).astype(int))
    change = seen[1] - seen[0]
    assert abs(change[20:44, 34:86].mean() - 0.1 * 255) < 4
    assert abs(change[:2]).mean() <= (2 if format == "jpeg" else 0)


def test_models_see_colours_as_srgb(tmp_path):
    icc = photo_files.profile("p3")
    array = photo_files.picture(SIZE, SIZE)
    photo = open_photo(photo_files.write(tmp_path / "a.png", "png", array, icc=icc))
    small = photo.small(SIZE)
    profiles = ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB")
    wanted = np.asarray(ImageCms.profileToProfile(Image.fromarray(array), *profiles)) / 255
    close = np.quantile(abs(small.srgb - wanted), 0.95)  # the rest lies outside of sRGB, where programs clip
    assert close < 2.5 / 255 < np.quantile(abs(small.own - wanted), 0.95)
    assert small.to_own is not None
    assert np.quantile(abs(small.to_own(small.srgb) - small.own), 0.9) < 0.5 / 255


def test_a_profile_that_is_sRGB_or_damaged_changes_nothing(tmp_path):
    for icc in (photo_files.profile("srgb"), b"no profile at all" * 20):
        small = open_photo(photo_files.write(tmp_path / "a.jpg", "jpeg", photo_files.picture(), icc=icc)).small(SIZE)
        assert small.to_own is None and (small.own == small.srgb).all()


@pytest.mark.parametrize("format", photo_files.EXTENSIONS)
def test_a_model_sees_what_it_learned_from(tmp_path, format):
    """The same reduction as in training, to the bit, up to four megapixels."""
    path = photo_files.write(tmp_path / "a", format, photo_files.picture(301, 203), everything=False)
    with Image.open(path) as image:
        wanted = resize_photo(np.asarray(image), SIZE)
    found = open_photo(path).small(SIZE).srgb * 255
    assert abs(found - wanted).max() <= (1 if format == "jpeg" else 1e-4)  # another decoder of JPEG


@pytest.mark.parametrize("format", ["jpeg", "png"])
def test_a_large_photo_is_reduced_in_two_steps(tmp_path, format, monkeypatch):
    array = cv2.resize(photo_files.picture(96, 64), (960, 640), interpolation=cv2.INTER_CUBIC)
    path = photo_files.write(tmp_path / "a", format, array, everything=False)
    exact = open_photo(path).small(SIZE).srgb
    monkeypatch.setattr("nrh_dist.photo.image.DRAFT_ABOVE", 1000)
    assert abs(open_photo(path).small(SIZE).srgb - exact).max() < 3 / 255


def test_transparent_pixels_are_seen_on_grey(tmp_path):
    array = np.zeros((64, 64, 4), np.uint8)
    array[:, 32:] = (200, 100, 50, 255)
    Image.fromarray(array).save(tmp_path / "a.png")
    seen = open_photo(tmp_path / "a.png").small(SIZE).srgb * 255
    assert (seen[:, 40:] == (200, 100, 50)).all() and abs(seen[:, :24] - 128).max() <= 1


def test_inks_become_srgb(tmp_path):
    Image.fromarray(photo_files.picture()).convert("CMYK").save(tmp_path / "a.jpg", exif=photo_files.exif(6))
    photo, _ = harmonised(tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert photo.is_cmyk
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.mode == "RGB" and image.getexif()[274] == 6 and "icc_profile" not in image.info


@pytest.mark.parametrize("format", photo_files.EXTENSIONS)
def test_strip_leaves_the_picture_alone(tmp_path, format):
    looked_at = photo_files.picture(96, 64)
    path, out = tmp_path / "a", tmp_path / "b"
    photo_files.write(path, format, photo_files.stored(looked_at, 6), 6, icc=photo_files.profile("p3"))
    for model in (brighter(), idle()):
        harmonised(path, out, model, strip=True)
        with Image.open(out) as image:
            assert image.size == (96, 64) and not dict(image.getexif()).get(271)
            assert not {"exif", "icc_profile", "xmp", "comment", "Author"} & set(image.info)
            found = np.asarray(image.convert("RGB")).astype(int)
        profiles = ImageCms.ImageCmsProfile(io.BytesIO(photo_files.profile("p3"))), ImageCms.createProfile("sRGB")
        wanted = np.asarray(ImageCms.profileToProfile(Image.fromarray(upright(path)), *profiles)).astype(int)
        assert abs(found - wanted)[:2].mean() < (8 if format == "jpeg" else 2)


@pytest.mark.parametrize("format", photo_files.EXTENSIONS)
def test_nothing_to_correct_is_the_same_file(tmp_path, format):
    path, out = tmp_path / "a", tmp_path / "b"
    photo_files.write(path, format, photo_files.picture(), 6, icc=photo_files.profile())
    _, found = harmonised(path, out, idle())
    assert found.correction is None and out.read_bytes() == path.read_bytes()


def test_a_profile_that_leads_to_srgb_alone_changes_nothing(tmp_path, monkeypatch):
    """As those of scanners: a correction could not be brought back."""

    def no_way_back(image, profile, channels):
        raise pyvips.Error("unable to transform")

    photo_files.write(tmp_path / "a", "png", photo_files.picture(), icc=photo_files.profile("p3"))
    monkeypatch.setattr(module, "_from_srgb", no_way_back)
    small = open_photo(tmp_path / "a").small(64)
    assert small.to_own is None and (small.own == small.srgb).all()


def test_a_large_jpeg_is_encoded_like_any_other(tmp_path, monkeypatch):
    """Pillow has a limit of its own, far below ours."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    photo_files.write(tmp_path / "a.jpg", "jpeg", photo_files.picture())
    assert writing._quality(tmp_path / "a.jpg") > 0
    harmonised(tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert (tmp_path / "b.jpg").stat().st_size


def test_how_a_jpeg_was_encoded_is_kept(tmp_path):
    for quality, subsampling, progressive in ((96, 0, True), (80, 2, False)):
        path, out = tmp_path / "a.jpg", tmp_path / "b.jpg"
        image = Image.fromarray(photo_files.picture())
        image.save(path, quality=quality, subsampling=subsampling, progressive=progressive)
        assert abs(writing._quality(path) - quality) <= 1
        harmonised(path, out)
        assert abs(writing._quality(out) - max(quality, writing.LEAST_QUALITY)) <= 1
        encoded = pyvips.Image.new_from_file(str(out))
        assert encoded.get("jpeg-chroma-subsample") == ("4:2:0" if subsampling else "4:4:4")
        assert encoded.get("jpeg-multiscan") == progressive


def test_compression_of_tiff_is_kept(tmp_path):
    image = Image.fromarray(photo_files.picture())
    for name, number in (("raw", 1), ("tiff_lzw", 5), ("tiff_adobe_deflate", 8)):
        image.save(tmp_path / "a.tif", compression=name)
        photo, _ = harmonised(tmp_path / "a.tif", tmp_path / "b.tif")
        assert photo.facts.compression == open_photo(tmp_path / "b.tif").facts.compression == number


def test_a_mask_limits_the_change(tmp_path):
    looked_at = photo_files.picture(96, 64)
    path, out = tmp_path / "a.png", tmp_path / "b.png"
    photo_files.write(path, "png", photo_files.stored(looked_at, 8), 8)
    mask = np.zeros((64, 96), np.uint8)
    mask[:, 60:] = 255
    photo = open_photo(path)
    predict.write(photo, brighter().look(photo, mask), out, mask=mask)
    changed = (upright(out) != upright(path)).any(axis=-1)
    assert changed[:, 60:].any() and not changed[:, :60].any()


def test_strength_is_a_share_of_the_change(tmp_path):
    path = photo_files.write_16_bits(tmp_path / "a.png", photo_files.picture(most=65535))
    changes = []
    for strength in (1.0, 0.25, 0.0):
        harmonised(path, tmp_path / "b.png", strength=strength)
        changes.append(photo_files.read_16_bits(tmp_path / "b.png").astype(int) - photo_files.read_16_bits(path))
    whole, quarter, none = changes
    level = photo_files.read_16_bits(path) + whole
    unclipped = (level > 0) & (level < 65535)
    assert abs(quarter - whole / 4)[unclipped].max() <= 1 and not none.any() and whole.any()


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise pyvips.Error("wbuffer: write error\nunix error: No space left on device")

    path = photo_files.write(tmp_path / "a.png", "png", photo_files.picture())
    monkeypatch.setattr(writing, "_encode", fail)
    with pytest.raises(ImageProblem, match=r"b\.png: cannot be written, .*No space left"):
        harmonised(path, tmp_path / "b.png")
    assert [one.name for one in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("format", ["png", "tiff", "webp"])
def test_strip_keeps_alpha_and_makes_the_colours_srgb(tmp_path, format):
    array = photo_files.picture(96, 64)
    alpha = np.tile(np.arange(96, dtype=np.uint8), (64, 1))
    profile = photo_files.profile("p3")
    photo_files.write(tmp_path / "plain", format, array, icc=profile)
    photo_files.write(tmp_path / "a", format, np.dstack([array, alpha]), icc=profile)
    for name in ("plain", "a"):
        writing.write(open_photo(tmp_path / name), lambda colours: colours * 0, tmp_path / f"{name}.out", strip=True)
    with Image.open(tmp_path / "a.out") as image, Image.open(tmp_path / "plain.out") as plain:
        assert image.mode == "RGBA" and "icc_profile" not in image.info
        assert (np.asarray(image)[..., 3] == alpha).all()
        assert abs(np.asarray(image)[..., :3].astype(int) - np.asarray(plain.convert("RGB"))).max() <= 1
        assert abs(np.asarray(image)[..., :3].astype(int) - array).mean() > 1


@pytest.mark.parametrize("format", photo_files.EXTENSIONS)
def test_strip_passes_over_a_profile_that_is_none(tmp_path, format):
    array = photo_files.picture(96, 64)
    photo_files.write(tmp_path / "a", format, array, icc=b"this is no profile")
    writing.write(open_photo(tmp_path / "a"), lambda colours: colours * 0, tmp_path / "b", strip=True)
    with Image.open(tmp_path / "b") as image:
        assert "icc_profile" not in image.info
        assert abs(np.asarray(image.convert("RGB")).astype(int) - array).mean() <= (12 if format == "jpeg" else 0)


@pytest.mark.parametrize("quality", [1, 30, 95])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpegs_table_is_the_one_that_pillow_reads(tmp_path, mode, quality):
    Image.fromarray(photo_files.picture(96, 64)).convert(mode).save(tmp_path / "a.jpg", quality=quality)
    with Image.open(tmp_path / "a.jpg") as opened:
        tables = opened.quantization
    assert sorted(metadata.luminance_table(tmp_path / "a.jpg")) == sorted(tables[min(tables)])


def test_the_size_in_print_stays(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(photo_files.picture()).save(path, dpi=(300, 300))
    harmonised(path, tmp_path / "b.jpg")
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.info["dpi"] == (300, 300)
