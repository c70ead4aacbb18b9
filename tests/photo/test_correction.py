"""What a model says at 64 or 256 px, on large photos: against the truth, against enlarging, and by its laws."""

import cv2
import numpy as np
import pytest
import pyvips
from networks import SIZE, brighter, gated, harmoniser, idle
from PIL import Image

from nrh_dist.data.scenes import draw
from nrh_dist.engine.network import FIELD, IMAGE, MASK
from nrh_dist.photo import array, correction
from nrh_dist.photo.correction import Answer
from nrh_dist.photo.image import Small, pixels

WIDTH, HEIGHT = 4000, 3000  # 12 megapixels
GAIN = 1.35  # of the object, in the real photo


def psnr(one, other):
    return 10 * np.log10(1 / np.mean((one.astype(np.float64) - other) ** 2))


def gradient_energy(image, where):
    """The mean squared difference between neighbours, where ``where`` holds."""
    across = np.diff(image.astype(np.float64), axis=1)[:-1] ** 2
    down = np.diff(image.astype(np.float64), axis=0)[:, :-1] ** 2
    return (across + down).sum(axis=-1)[where[:-1, :-1]].mean()


@pytest.fixture(scope="module")
def composite():
    """A real photo of 12 megapixels, with texture as fine as its pixels, and a composite: one object darker in it."""
    rng = np.random.default_rng(3)
    scene = draw(rng, 800, 600)
    real = cv2.resize(scene.photo.astype(np.float32) / 255, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    real = (real * 0.8 + 0.03 * rng.standard_normal((HEIGHT, WIDTH, 1)).astype(np.float32) + 0.05).clip(0, 1)
    mask = cv2.resize(scene.objects[0].mask, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) / np.float32(255)
    made = real * (1 - mask[..., None]) + real / GAIN * mask[..., None]
    return np.rint(made * 255).astype(np.uint8), real, mask


def decoder(real, size, blur):
    """A model that knows the truth at its own size, and draws it as a decoder does: without the finest texture."""
    truth = cv2.resize(real, (size, size), interpolation=cv2.INTER_AREA)
    drawn = cv2.GaussianBlur(truth, (0, 0), blur) if blur else truth
    return harmoniser(lambda photo, _: {IMAGE: 2 * drawn.transpose(2, 0, 1)[None] - 1}, "dih_nm", size)


@pytest.mark.parametrize("blur", [pytest.param(0, marks=pytest.mark.slow), 0.7])
def test_a_large_composite_of_a_decoder(composite, blur):
    """Against the network's picture enlarged, and against its change enlarged without a guide."""
    photo, real, mask = composite
    model = decoder(real, 256, blur)
    ours = model(photo) / 255
    small = array.small(photo, 256)
    answer = model.network(small.srgb)
    enlarged = cv2.resize(answer.image, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    change = cv2.resize(answer.image - small.srgb, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    unguided = (photo / 255 + change).clip(0, 1)
    found = {name: psnr(one, real) for name, one in (("ours", ours), ("enlarged", enlarged), ("unguided", unguided))}
    print(blur, found, "input", psnr(photo / 255, real))
    assert found["ours"] > found["enlarged"] + 3
    assert found["ours"] > found["unguided"]
    far = cv2.dilate(mask, np.ones((65, 65))) == 0
    kept = gradient_energy(ours, far) / gradient_energy(photo / 255, far)
    lost = gradient_energy(enlarged, far) / gradient_energy(photo / 255, far)
    print(kept, lost)
    assert abs(kept - 1) < 0.02 < abs(lost - 1)


def test_a_large_composite_of_a_gate(composite):
    """The right field and a gate at 7/8 of the size: better than enlarging, and not a pixel changes far from it."""
    photo, real, mask = composite
    size = 256
    coarse = cv2.resize(cv2.resize(mask, (224, 224), interpolation=cv2.INTER_AREA), (size, size))
    opening = np.where(coarse < 0.1, 0, coarse).astype(np.float32)
    gain = GAIN - 1  # of colours in [0, 1]; in [-1, 1]: gain * x + gain
    field = np.full((1, 6, 8, 8), gain, np.float32)

    def run(given, _):
        return {IMAGE: given + opening * gain * (given + 1), MASK: opening[None, None], FIELD: field}

    model = harmoniser(run, "gated", size)
    ours = model(photo)
    enlarged = cv2.resize(
        model.network(array.small(photo, size).srgb).image, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC
    )
    print("gate", psnr(ours / 255, real), psnr(enlarged, real), psnr(photo / 255, real))
    assert psnr(ours / 255, real) > psnr(enlarged, real) + 3
    far = cv2.dilate(mask, np.ones((161, 161))) == 0
    assert (ours == photo)[far].all() and (ours != photo)[mask > 0.9].any()


def test_the_field_is_applied_as_the_model_does():
    """Where the gate is open all around, the change of the large photo is gain x + offset of its own colours."""
    rng = np.random.default_rng(0)
    photo = rng.random((300, 420, 3), dtype=np.float32)
    gain, offset = 0.2, -0.1
    model = gated(gain, offset, 0, SIZE, 0, SIZE)
    signed = 2 * photo - 1
    expected = ((signed + gain * signed + offset + 1) / 2).clip(0, 1)
    assert abs(model(photo) - expected).max() < 1e-5
    grey = photo[..., 0]
    assert abs(model(grey) - expected[..., 0]).max() < 1e-5


def test_at_the_models_own_size_its_answer_is_taken_as_it_is():
    rng = np.random.default_rng(0)
    photo, drawn = rng.random((2, SIZE, SIZE, 3), dtype=np.float32)
    model = harmoniser(lambda *_: {IMAGE: 2 * drawn.transpose(2, 0, 1)[None] - 1}, "dih_nm")
    assert abs(model(photo) - drawn).max() < 1e-6
    assert abs(model(photo[:, :60]) - drawn[:, :60]).max() > 0.1


@pytest.mark.parametrize("deviation", correction.BLURS)
def test_the_blur_of_a_decoder_is_found(deviation):
    """Also where a third of the picture was changed by a fifth."""
    photo = cv2.GaussianBlur(np.random.default_rng(0).random((64, 64, 3), dtype=np.float32), (0, 0), 0.5)
    real = photo.copy()
    real[10:50, 20:50] *= 0.8
    drawn = cv2.GaussianBlur(real, (0, 0), deviation) if deviation else real
    assert correction.blur_of(photo, drawn) == deviation


@pytest.mark.parametrize(("width", "height"), [(200, 150), (64, 64), (40, 1000), (3, 2)])
def test_maps_are_enlarged_as_opencv_does(width, height):
    small = np.random.default_rng(0).random((48, 32, 7)).astype(np.float32)
    found = pixels(correction.enlarged(small, width, height))
    wanted = np.stack(
        [cv2.resize(one, (width, height), interpolation=cv2.INTER_LINEAR) for one in np.moveaxis(small, -1, 0)], axis=-1
    )
    assert abs(found - wanted).max() < 2e-3  # libvips rounds its weights to 1/4096 or so


def test_when_nothing_is_found():
    photo = np.full((SIZE, SIZE, 3), 0.5, np.float32)
    small = Small(photo, photo)
    other, mask = photo + 0.2, np.zeros((SIZE, SIZE), np.float32)
    assert not correction.changing(small, Answer(photo + 0.4 / 255))
    assert correction.changing(small, Answer(other))
    assert not correction.changing(small, Answer(other, mask + 0.49))
    assert correction.changing(small, Answer(other, mask + 0.5))
    assert not correction.changing(small, Answer(other, mask, is_gated=True))
    assert correction.changing(small, Answer(other, mask + 0.01, is_gated=True))


def test_an_array_in_which_nothing_is_found_comes_back():
    photo = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    for name in ("ptc_dih", "gated"):
        found = idle(name)(photo)
        assert (found == photo).all() and found is not photo


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(90, 120, 3), (90, 120)])
def test_arrays_keep_their_type(dtype, shape):
    most = array.MOST[np.dtype(dtype)]
    photo = (np.random.default_rng(0).random(shape) * 0.6 * most).astype(dtype)
    found = brighter()(photo)
    assert found.dtype == photo.dtype and found.shape == photo.shape
    change = (found.astype(np.float64) - photo) / most
    assert abs(change[30:60, 50:100].mean() - 0.15) < 0.01 and abs(change[:2]).max() < 1e-6


def test_arrays_that_are_no_photos():
    model = brighter()
    good = np.zeros((8, 8, 3), np.uint8)
    floats = good.astype(np.float32)
    for bad in (good[..., :2], good.astype(np.int32), good[None], good[:0], floats - 0.1, floats + 2, floats * np.nan):
        with pytest.raises(ValueError, match="a photo"):
            model(bad)
    with pytest.raises(ValueError, match="0, no change, to 1"):
        model(good, strength=1.1)
    for bad in (Image.fromarray(good), good.tolist(), "photo.jpg"):
        with pytest.raises(ValueError, match="a photo is a numpy array"):
            model(bad)
    with pytest.raises(ValueError, match="a mask is a numpy array"):
        model(good, 0.5)
    with pytest.raises(ValueError, match="a mask is H x W"):
        model(good, mask=np.zeros((8, 7), np.float32))
    with pytest.raises(ValueError, match=r"a mask is in \[0, 1\], not in levels: this one holds 0 to 255"):
        model(good, mask=np.diag([255] * 8).astype(np.uint8))
    with pytest.raises(ValueError, match="dih_m needs the mask"):
        brighter(name="dih_m")(good)


def test_a_mask_limits_the_change_of_an_array():
    photo = np.full((90, 120, 3), 100, np.uint8)
    mask = np.zeros((90, 120), np.float32)
    mask[:, 70:] = 1
    found = brighter()(photo, mask=mask)
    assert (found[:, :70] == 100).all() and (found[40, 80] > 100).all()


def test_photos_of_one_pixel_and_of_one_row():
    for shape in ((1, 1, 3), (1, 500, 3), (500, 1)):
        assert brighter(0, SIZE, 0, SIZE)(np.full(shape, 100, np.uint8)).shape == shape


def test_vips_keeps_no_copy_of_a_file():
    assert pyvips.cache_get_max() == 0
