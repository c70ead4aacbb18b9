"""A training as a process of a study: it saves and ends when the study that started it is gone, however that died.

python -m nrh_dist.workflows.study.child PID_OF_THE_STUDY key=value ...
"""

import os
import signal
import sys
import threading
import time

from nrh_dist.engine.run import main
from nrh_dist.errors import UserError

LOOK_SECONDS = 1.0


def follow(parent: int) -> None:
    """Ask this process to save and end, as SIGTERM does, once its parent is another one than ``parent``."""
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=follow, args=(int(sys.argv[1]),), daemon=True).start()
    try:
        main(sys.argv[2:])
    except UserError as error:
        sys.exit(f"nrh: {error}")
