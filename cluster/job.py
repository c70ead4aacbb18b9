"""Run any verb of nrh on a cluster: the command line as on one machine, joined to the Ray that runs here.

ray submit cluster/config.yaml cluster/job.py -- train 'data.pack=$NRH_STORAGE/packs/iharmony4' run.name=first
ray submit cluster/config.yaml cluster/job.py -- tune search_spaces/gated.yaml 'data.pack=$NRH_STORAGE/packs/iharmony4'

Any failure exits non-zero. A shell on the head reads the words once more: there $NRH_STORAGE is the cluster's own, and
a word with blanks, brackets or quotes is quoted twice: "'data.transforms=[exposure, contrast]'".

ray submit ends with your terminal. A run that outlives it, its lines, and its end with a checkpoint saved:

nrh='python nrh_dist/cluster/job.py'
ray exec cluster/config.yaml "ray job submit --no-wait --submission-id first -- $nrh train run.name=first"
ray exec cluster/config.yaml 'ray job logs --follow first'
ray exec cluster/config.yaml 'ray job stop first'
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path


def project() -> Path | None:
    """The project's folder: where this script lies, or where the launcher puts it; it copies the script to the home."""
    places = (Path(__file__).resolve().parent.parent, Path.home() / "nrh_dist")
    return next((place for place in places if (place / "nrh_dist" / "cli.py").exists()), None)


def main(arguments: Sequence[str]) -> None:
    """Run ``nrh ARGUMENTS`` on the cluster of this machine; any failure exits non-zero."""
    os.environ.setdefault("RAY_ADDRESS", "auto")
    if place := project():
        os.chdir(place)
        # In the place of this script's folder: Ray hands it on to the workers, and in the home folder the project's
        # own would hide the package of the same name.
        sys.path[0] = str(place)
    from nrh_dist.cli import main as nrh

    nrh(list(arguments))


if __name__ == "__main__":
    main(sys.argv[1:])
