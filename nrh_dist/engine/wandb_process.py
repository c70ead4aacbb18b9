"""The process that talks to Weights & Biases, so that nothing that happens to it can hold, slow or end a training.

``track`` starts it and writes lines of JSON to its standard input: the options of ``wandb.init``, then one row an
epoch. The end of the input, however it comes, is the end of the run. Its output is ASKING when it calls W&B, TAKEN when
W&B took the run, and the one line of what went wrong.
"""

import json
import os
import sys

ASKING, TAKEN = b"?", b"!"


def main() -> None:
    """Log what comes. Never leaves by the interpreter's own end, where the SDK would wait for its server again."""
    output = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    code = 1
    try:
        import wandb

        options = json.loads(sys.stdin.readline())
        os.write(output, ASKING)
        run = wandb.init(settings=wandb.Settings(**options.pop("settings")), **options)
        os.write(output, TAKEN)
        run.define_metric("*", step_metric="epoch")
        for line in sys.stdin:
            run.log(json.loads(line))
        run.finish()
        code = 0
    except Exception as error:  # the SDK raises many kinds
        os.write(output, f"{type(error).__name__}: {error}".split("\n")[0][:200].encode())
    os._exit(code)


if __name__ == "__main__":
    main()
