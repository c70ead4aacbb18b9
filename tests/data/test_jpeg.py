"""Photos by OpenCV's decoder: the pixels of PIL, and every unusual or broken file left to the careful way."""

import io

import numpy as np
import pytest
from PIL import Image

from nrh_dist.data import images, jpeg


@pytest.fixture
def photo():
    smooth = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8))
    return smooth.resize((75, 53), Image.Resampling.BICUBIC)


def saved(image, path, format="JPEG", **options):
    image.save(path, format, **options)
    return path


@pytest.fixture
def careful(monkeypatch):
    """The files that were left to ``images.read_rgb``."""
    seen, real = [], images.read_rgb
    monkeypatch.setattr(images, "read_rgb", lambda path: (seen.append(path.name), real(path))[1])
    return seen


@pytest.mark.parametrize(
    "options", [{"quality": 75}, {"quality": 95, "subsampling": 0}, {"progressive": True}, {"subsampling": 1}]
)
def test_the_pixels_are_those_of_pil(tmp_path, photo, careful, options):
    path = saved(photo, tmp_path / "a.jpg", **options)
    np.testing.assert_array_equal(jpeg.read_rgb(path), np.asarray(Image.open(path)))
    assert not careful


def test_the_orientation_tag_is_left_alone(tmp_path, photo, careful):
    tag = Image.Exif()
    tag[0x0112] = 6
    path = saved(photo, tmp_path / "a.jpg", exif=tag)
    assert jpeg.read_rgb(path).shape == (53, 75, 3)
    assert not careful


@pytest.mark.parametrize("mode", ["L", "CMYK", "png", "16 bit", "large", "padded"])
def test_unusual_files_are_read_the_careful_way(tmp_path, photo, careful, monkeypatch, mode):
    path = tmp_path / "a.jpg"
    if mode in ("L", "CMYK"):
        saved(photo.convert(mode), path)
    elif mode == "png":
        saved(photo, path, "PNG")
    elif mode == "16 bit":
        saved(Image.fromarray(np.arange(53 * 75, dtype=np.uint16).reshape(53, 75) * 16), path, "PNG")
    else:
        saved(photo, path)
        monkeypatch.setattr(jpeg, "SIDE_LIMIT", 74 if mode == "large" else 8192)
        path.write_bytes(path.read_bytes() + b"\0" * (mode == "padded"))
    assert jpeg.read_rgb(path).shape == (53, 75, 3)
    assert careful == ["a.jpg"]


def test_a_file_cut_anywhere_is_refused(tmp_path, photo):
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG")
    content = buffer.getvalue()
    for length in range(0, len(content) - 2, 7):
        (tmp_path / "a.jpg").write_bytes(content[:length])
        with pytest.raises(images.ImageProblem):
            jpeg.read_rgb(tmp_path / "a.jpg")
    with pytest.raises(images.ImageProblem, match="missing"):
        jpeg.read_rgb(tmp_path / "none.jpg")
