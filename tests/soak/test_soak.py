"""Random kills and damage, through Ray and without: pytest tests/soak -m soak -s (45 minutes on two cores).

NRH_SOAK_FAULTS="160 40" and NRH_SOAK_SEED=0 say how many, without Ray and through it, and which. soak.py is the same as
a command, in pieces, and writes the figures into the reports.
"""

import os
from dataclasses import asdict

import pytest
from soak import run, table

LOOP, RAY = map(int, os.environ.get("NRH_SOAK_FAULTS", "160 40").split())


@pytest.mark.soak
@pytest.mark.parametrize(("mode", "faults"), [("loop", LOOP), ("ray", RAY)])
def test_every_fault_is_survived_and_no_result_is_wrong(mode, faults, tmp_path):
    piece = run(mode, faults, int(os.environ.get("NRH_SOAK_SEED", "0")), tmp_path)
    print(table([asdict(piece)]))
    assert len(piece.faults) == faults and piece.is_good
