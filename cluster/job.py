"""Run any verb of nrh on a cluster: the command line as on one machine, joined to the Ray that runs here.

ray submit cluster/config.yaml cluster/job.py -- train data.root=/data/iHarmony4 run.root=/data/runs scale.workers=4
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> None:
    """Run ``nrh ARGUMENTS`` on the cluster of this machine; any failure exits non-zero."""
    os.environ.setdefault("RAY_ADDRESS", "auto")
    project = Path.home() / "nrh_dist"  # where the launcher puts the project; it runs this script in the home folder
    if project.is_dir():
        os.chdir(project)
    from nrh_dist.cli import main as nrh

    nrh(list(arguments))


if __name__ == "__main__":
    main(sys.argv[1:])
