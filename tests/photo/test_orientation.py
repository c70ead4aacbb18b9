import numpy as np
import photo_files
import pytest
from PIL import Image, ImageOps

from nrh_dist.photo.orientation import as_stored, upright


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_what_pillow_shows(tmp_path, orientation):
    array = photo_files.picture(7, 5)
    Image.fromarray(array).save(tmp_path / "a.png", exif=photo_files.exif(orientation))
    with Image.open(tmp_path / "a.png") as image:
        shown = np.asarray(ImageOps.exif_transpose(image))
    assert (upright(array, orientation) == shown).all()
    assert (as_stored(shown, orientation) == array).all()
    assert (photo_files.stored(shown, orientation) == array).all()
