"""The file of human thresholds: gains become stops, and everything that can be wrong with it is one clear line."""

import numpy as np
import pytest

from nrh_dist.data.layouts import Source, index
from nrh_dist.data.thresholds import read
from nrh_dist.errors import UserError

HEADER = "name,image,negative_gain,positive_gain\n"


def write(path, text):
    path.write_text(text)
    return path


def test_gains_become_stops_by_name(tmp_path):
    path = write(tmp_path / "t.csv", HEADER + "a,x.jpg,0.5,2\nb,y.jpg,0.25,1.189207115\n")
    np.testing.assert_allclose(read(path, ["b", "c", "a"]), [[-2, 0.25], [np.nan, np.nan], [-1, 1]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,negative_gain\na,0.5\n", "has no column positive_gain"),
        ("", "has no column name"),
        (HEADER + "a,x,1.5,2\n", r"line 2: negative_gain=1\.5, positive_gain=2: they must be in \(0, 1\) and above 1"),
        (HEADER + "a,x,half,2\n", "line 2: negative_gain=half"),
        (HEADER + "a,x,0.5\n", "line 2: negative_gain=0.5, positive_gain=None"),
        (HEADER + "a,x,nan,inf\n", "line 2"),
        (HEADER + "a,x,0.5,2\na,x,0.5,2\n", "line 3: a comes twice"),
        (HEADER + "z,x,0.5,2\n", "has thresholds of z and others, but none of the photos at hand, such as a"),
        (HEADER, "thresholds of nothing and others"),
    ],
)
def test_mistakes_are_one_clear_line(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as caught:
        read(write(tmp_path / "t.csv", text), ["a"])
    assert "\n" not in str(caught.value)


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv is not a readable CSV file"):
        read(tmp_path / "none.csv", ["a"])
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a readable CSV file"):
        read(tmp_path / "t.csv", ["a"])


def test_real_thresholds(real_photos):
    folder = real_photos / "thresholds"
    stops = read(folder / "thresholds.csv", [sample.name for sample in index(Source(folder))])
    assert stops.shape == (235, 2) and not np.isnan(stops).any()
    assert stops.mean(axis=0) == pytest.approx([-0.248, 0.227], abs=0.01)
