import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import bomb

from nrh_dist.data import images
from nrh_dist.data.images import ImageProblem, check_decodes, read_mask, read_rgb, read_size, resize_mask, resize_photo

RNG = np.random.default_rng(0)
PHOTO = np.asarray(Image.fromarray(RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((96, 72), 3))
GREY = PHOTO[..., 0]


def encoded(image: Image.Image, extension: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, extension, **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "1", "P"])
def test_every_mode_is_read_as_rgb(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(PHOTO).convert(mode)
    image.save(tmp_path / "x.PNG")
    assert read_rgb(tmp_path / "x.PNG").dtype == np.uint8
    assert np.array_equal(read_rgb(tmp_path / "x.PNG"), np.asarray(image.convert("RGB")))


def test_print_colours_are_read_as_rgb(tmp_path: Path) -> None:
    Image.fromarray(PHOTO).convert("CMYK").save(tmp_path / "x.jpg", quality=100, subsampling=0)
    assert np.abs(read_rgb(tmp_path / "x.jpg") - PHOTO.astype(int)).max() <= 12


def test_palette_with_transparency_is_read_without_a_warning(tmp_path: Path) -> None:
    image = Image.fromarray(GREY).convert("P")
    image.save(tmp_path / "x.png", transparency=bytes(range(256)))
    assert np.array_equal(read_rgb(tmp_path / "x.png")[..., 1], GREY)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    Image.fromarray(values).save(tmp_path / "x.png")
    assert np.array_equal(read_mask(tmp_path / "x.png"), values >> 8)
    assert np.array_equal(read_rgb(tmp_path / "x.png")[..., 2], values >> 8)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_masks_keep_their_grey_edges(tmp_path: Path, mode: str) -> None:
    Image.fromarray(GREY).convert(mode).save(tmp_path / "x.png")
    assert np.array_equal(read_mask(tmp_path / "x.png"), GREY)


def test_binary_mask_becomes_0_and_255(tmp_path: Path) -> None:
    Image.fromarray(GREY > 99).save(tmp_path / "x.png")
    assert np.array_equal(read_mask(tmp_path / "x.png"), np.where(GREY > 99, 255, 0))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty (0 bytes)"),
        (b"<html>404</html>", "is not a JPEG or PNG image"),
        (encoded(Image.fromarray(PHOTO), "GIF"), "is not a JPEG or PNG image"),
        (encoded(Image.fromarray(PHOTO), "JPEG")[:-400], "is truncated"),
        (encoded(Image.fromarray(PHOTO), "JPEG", progressive=True)[:-2], "is truncated"),
        (encoded(Image.fromarray(PHOTO), "PNG")[:-2000], "is truncated"),
        (encoded(Image.fromarray(PHOTO), "JPEG")[:30], "is truncated"),
        (bomb(20_000, 20_000), "claims too many pixels: Image size (400000000 pixels)"),
        (bomb(13_000, 9_000), "claims "),
    ],
    ids=["empty", "text", "gif", "jpeg", "progressive", "png", "header", "bomb", "smaller-bomb"],
)
@pytest.mark.parametrize("read", [read_rgb, read_mask, check_decodes])
def test_a_bad_file_is_named_with_its_reason(tmp_path: Path, content: bytes, reason: str, read) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageProblem) as caught:
        read(path)
    assert caught.value.path == path
    assert caught.value.reason.startswith(reason)
    assert str(caught.value) == f"{path}: {caught.value.reason}"


def test_limit_of_pixels_holds_below_the_line_where_pil_raises(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(bomb(13_000, 9_000))
    with pytest.warns(Image.DecompressionBombWarning), pytest.raises(ImageProblem, match="13000x9000 pixels"):
        read_size(tmp_path / "x.png")


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageProblem, match=r"x\.jpg: is missing"):
        read_size(tmp_path / "x.jpg")
    with pytest.raises(ImageProblem, match="cannot be read: Is a directory"):
        read_size(tmp_path)


@pytest.mark.parametrize("extension", ["JPEG", "PNG"])
def test_every_cut_is_found(tmp_path: Path, extension: str) -> None:
    whole = encoded(Image.fromarray(PHOTO[::4, ::4]), extension)
    end = len(whole) - (4 if extension == "PNG" else 0)  # the last 4 bytes of every PNG are the same: nothing is lost
    for length in (*range(1, end - 40, 13), *range(end - 40, end)):
        (tmp_path / "x.jpg").write_bytes(whole[:length])
        with pytest.raises(ImageProblem, match="is truncated" if length > 3 else "is not a JPEG"):
            check_decodes(tmp_path / "x.jpg")


def test_flipped_bits_of_a_png_are_found(tmp_path: Path) -> None:
    whole = bytearray(encoded(Image.fromarray(PHOTO), "PNG"))
    whole[len(whole) // 2] ^= 1
    (tmp_path / "x.png").write_bytes(whole)
    with pytest.raises(ImageProblem, match="is truncated or damaged: broken PNG"):
        check_decodes(tmp_path / "x.png")


def test_problem_survives_the_way_from_another_process() -> None:
    problem = pickle.loads(pickle.dumps(ImageProblem(Path("a.jpg"), "is truncated")))
    assert (problem.path, problem.reason) == (Path("a.jpg"), "is truncated")


def test_sizes_are_width_and_height(tmp_path: Path) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "x.jpg")
    assert read_size(tmp_path / "x.jpg") == check_decodes(tmp_path / "x.jpg") == (96, 72)


def test_draft_keeps_both_sides_at_least_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.jpg"
    Image.fromarray(PHOTO).resize((960, 500)).save(path, quality=95)
    assert read_rgb(path, at_least=120).shape == (500, 960, 3), "small photos are decoded in full"
    monkeypatch.setattr(images, "DRAFT_ABOVE", 100_000)
    drafted = read_rgb(path, at_least=120)
    assert drafted.shape == (125, 240, 3)
    difference = resize_photo(drafted, 60).astype(float) - resize_photo(read_rgb(path), 60)
    assert np.abs(difference).max() <= 4


def test_resizing_laws() -> None:
    flat = np.full((50, 70, 3), 77, np.uint8)
    assert np.array_equal(resize_photo(flat, 64), np.full((64, 64, 3), 77))
    assert np.array_equal(resize_photo(PHOTO[:64, :64], 64), PHOTO[:64, :64])
    blocks = GREY[:64, :64].reshape(16, 4, 16, 4).astype(float).mean(axis=(1, 3))  # the mean of each block
    assert np.abs(resize_mask(GREY[:64, :64], 16) - blocks).max() <= 1, "rounded once an axis"
