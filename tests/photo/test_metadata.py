"""What files say is carried over byte for byte, whatever the format; what is damaged is told."""

import struct

import photo_files
import pytest
import pyvips
from PIL import Image

from nrh_dist.photo import metadata
from nrh_dist.photo.metadata import Damaged, Segment


def carried(tmp_path, format, source, bare, profile=True):
    out = tmp_path / "out"
    metadata.carry_over(format, source, bare, out, profile)
    assert not bare.exists()
    return out


@pytest.fixture
def files(tmp_path):
    """A file that says all, and a bare one of another picture."""

    def make(format, icc=True):
        icc = photo_files.profile() if icc else None
        source = photo_files.write(tmp_path / "source", format, photo_files.picture(), 6, icc)
        bare = photo_files.write(tmp_path / "bare", format, photo_files.picture(seed=1), everything=False)
        return source, bare

    return make


@pytest.mark.parametrize("format", ["jpeg", "png", "webp"])
def test_all_is_carried_over(tmp_path, files, format):
    source, bare = files(format)
    with Image.open(bare) as image:
        pixels = image.tobytes()
    with Image.open(carried(tmp_path, format, source, bare)) as found, Image.open(source) as wanted:
        assert found.tobytes() == pixels != wanted.tobytes()
        for key in ("exif", "icc_profile", "xmp", "comment", "Author", "dpi"):
            assert found.info.get(key) == wanted.info.get(key), key
        assert found.info["exif"] and found.info["icc_profile"] == photo_files.profile() and found.info.get("xmp")


def test_tags_of_tiff_are_carried_over(tmp_path, files):
    source, bare = files("tiff")
    pixels = pyvips.Image.new_from_file(str(bare)).numpy()
    with Image.open(carried(tmp_path, "tiff", source, bare)) as found, Image.open(source) as wanted:
        assert (pyvips.Image.new_from_file(str(tmp_path / "out")).numpy() == pixels).all()
        ours, theirs = found.getexif(), wanted.getexif()
        for tag in (271, 274, 315, 700, 34675):
            assert ours[tag] == theirs[tag], tag
        assert ours.get_ifd(0x8769) == theirs.get_ifd(0x8769) != {}
        assert ours.get_ifd(0x8825) == theirs.get_ifd(0x8825) != {}


@pytest.mark.parametrize("format", ["jpeg", "tiff"])
def test_a_profile_may_be_left_out(tmp_path, files, format):
    source, bare = files(format)
    with Image.open(carried(tmp_path, format, source, bare, profile=False)) as found:
        assert "icc_profile" not in found.info and found.getexif()[271] == "Maker"


def test_adobes_segment_and_indices_of_pictures_stay_behind(tmp_path):
    source, bare = tmp_path / "source", tmp_path / "bare"
    Image.new("CMYK", (8, 8)).save(source, "JPEG")
    found, _ = metadata.segments(source.read_bytes())
    assert any(one.marker == 0xEE for one in found)
    more = metadata._segment(Segment(0xE2, b"MPF\0" + bytes(20))) + metadata._segment(Segment(0xEB, b"JP\0\1"))
    source.write_bytes(b"\xff\xd8" + more + source.read_bytes()[2:])
    assert metadata.facts("jpeg", source).has_more_pictures
    Image.new("RGB", (8, 8)).save(bare, "JPEG")
    assert not metadata.facts("jpeg", bare).has_more_pictures
    kept, _ = metadata.segments(carried(tmp_path, "jpeg", source, bare).read_bytes())
    assert [one.marker for one in kept if 0xE1 <= one.marker <= 0xEF] == [0xEB]
    with Image.open(tmp_path / "out") as image:
        image.load()


def test_a_tiff_of_the_other_byte_order(tmp_path):
    """Written by hand: big-endian tags, of which one is a pair of numbers and one leads to EXIF."""
    entries = [
        (271, 2, 6, struct.pack(">I", 200)),
        (282, 5, 1, struct.pack(">I", 208)),
        (34665, 4, 1, struct.pack(">I", 220)),
    ]
    head = struct.pack(">2sHIH", b"MM", 42, 8, len(entries))
    tags = b"".join(struct.pack(">HHI", *one[:3]) + one[3] for one in entries) + bytes(4)
    values = b"Maker\0\0\0" + struct.pack(">II", 300, 1) + bytes(4)
    inner = struct.pack(">H", 1) + struct.pack(">HHIHH", 37384, 3, 1, 10, 0) + bytes(4)
    (tmp_path / "source").write_bytes((head + tags).ljust(200, b"\0") + values + inner)
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "bare", "TIFF")
    with Image.open(carried(tmp_path, "tiff", tmp_path / "source", tmp_path / "bare")) as found:
        made = found.getexif()
        assert (made[271], made[282], made.get_ifd(0x8769)) == ("Maker", 300, {37384: 10})
        assert found.getpixel((0, 0)) == (1, 2, 3)


def test_animations_are_known(tmp_path):
    frames = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (0, 200)]
    for format in ("png", "webp"):
        for name, more in (("moving", {"save_all": True, "append_images": frames[1:]}), ("still", {})):
            frames[0].save(tmp_path / name, format.upper(), **more)
            assert metadata.facts(format, tmp_path / name).is_animated == (name == "moving")


def test_what_webp_loses_is_known(tmp_path):
    for lossless in (True, False):
        Image.new("RGB", (8, 8)).save(tmp_path / "a", "WEBP", lossless=lossless)
        assert metadata.facts("webp", tmp_path / "a").is_lossless == lossless


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "tiff"])
def test_a_file_that_ends_early_is_damaged_wherever_it_ends(tmp_path, files, format):
    source, bare = files(format)
    content, picture = source.read_bytes(), bare.read_bytes()
    with_picture = metadata.segments(content)[1] if format == "jpeg" else len(content) // 2
    for length in range(12, with_picture, 97):
        source.write_bytes(content[:length])
        bare.write_bytes(picture)
        try:
            metadata.carry_over(format, source, bare, tmp_path / "out", True)
        except Damaged:
            continue
        assert format == "webp" or length >= with_picture - 97 or format == "tiff"


def test_tags_in_a_circle_end(tmp_path):
    head = struct.pack("<2sHIH", b"II", 42, 8, 1)
    (tmp_path / "source").write_bytes(head + struct.pack("<HHII", 34665, 4, 1, 8) + bytes(4))
    Image.new("RGB", (8, 8)).save(tmp_path / "bare", "TIFF")
    with pytest.raises(Damaged, match="more tags"):
        metadata.carry_over("tiff", tmp_path / "source", tmp_path / "bare", tmp_path / "out", True)
