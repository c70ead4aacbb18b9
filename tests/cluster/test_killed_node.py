"""What of test_nodes.py runs in every test run: its cluster of four nodes bears no other Ray in the same process."""

import subprocess
import sys
from pathlib import Path

NODES = Path(__file__).with_name("test_nodes.py")


def test_a_killed_node_costs_one_checkpoint_interval_and_no_bit():
    one = f"{NODES}::test_a_killed_node_costs_one_checkpoint_interval"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cluster", "-p", "no:cacheprovider", one]
    done = subprocess.run(command, cwd=NODES.parents[2], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout[-6000:]
