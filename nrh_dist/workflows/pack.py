"""``nrh data pack``: a data folder as a pack, and beside its pack.json what is told of COCO-Exp's composites."""

import os
import shutil
from pathlib import Path

from nrh_dist.data.coco_exp import MANIFEST, set_of
from nrh_dist.data.layouts import Source
from nrh_dist.data.pack import listed, write_pack
from nrh_dist.engine.progress import Say
from nrh_dist.errors import UserError
from nrh_dist.schema import SIZES


def pack(source: Source, out: Path, size: int, workers: int | None, say: Say, max_bad_files: int = 0) -> None:
    """Pack ``source`` into ``out`` and copy its ``manifest.csv``, where it has one. ``UserError`` as ``write_pack``.

    ``size`` is one that models are made for. The manifest is in no digest: it shapes no pixel, and a training goes on
    with a pack that was made without it. A pack that is there already gets it, too.
    """
    if size not in SIZES:
        raise UserError(f"--size {size}: models are made for {', '.join(map(str, SIZES))}: give one of them")
    write_pack(listed(source, max_bad_files), out, size, workers, say, max_bad_files)
    manifest = set_of(source.root) / MANIFEST
    if not manifest.is_file():
        return
    temporary = out / f"{MANIFEST}.tmp"
    try:
        shutil.copyfile(manifest, temporary)
        os.replace(temporary, out / MANIFEST)
    except OSError as error:
        raise UserError(
            f"cannot copy {manifest} to {out}: {error.strerror or error}; mend that and run again"
        ) from None
