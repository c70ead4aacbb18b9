"""Files as they are written: whole, also where the disk takes less at once."""

import os

from nrh_dist.engine import files


def test_a_write_that_takes_less_than_it_was_given_goes_on(tmp_path, monkeypatch):
    pwrite, taken = os.pwrite, []

    def short(descriptor, content, position):
        taken.append(position)
        return pwrite(descriptor, content[:3], position)

    monkeypatch.setattr(os, "pwrite", short)
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    files.write_at(descriptor, memoryview(b"0123456789"), 2)
    os.close(descriptor)
    assert (tmp_path / "file").read_bytes() == b"\0\x000123456789" and taken == [2, 5, 8, 11]
