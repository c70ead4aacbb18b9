"""Sample data packed, which benches work on that need no photos."""

from pathlib import Path

from nrh_dist.data.layouts import Source, index
from nrh_dist.data.pack import Pack, write_pack
from nrh_dist.data.synthetic import write_sample
from nrh_dist.engine.progress import Say


def sample_pack(folder: Path, size: int, say: Say) -> Pack:
    """The pack of the sample iHarmony4 data at ``size`` pixels, made in ``folder``."""
    write_sample(folder / "sample", say=say)
    return write_pack(index(Source(folder / "sample" / "iharmony4")), folder / "pack", size, 1, lambda _: None)
