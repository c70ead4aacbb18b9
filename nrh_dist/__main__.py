"""``python -m nrh_dist`` is ``nrh``."""

from nrh_dist.cli import main

main()
