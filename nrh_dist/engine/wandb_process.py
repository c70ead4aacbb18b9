"""The process that talks to Weights & Biases, so that nothing that happens to it can hold, slow or end a training.

``track`` starts it and writes lines of JSON to its standard input: the options of ``wandb.init``, then one row an
epoch. The end of the input, however it comes, is the end of the run. What went wrong is the one line on its output.
"""

import json
import os
import sys

NO_START = 3  # exit code: W&B did not take the run


def main() -> None:
    """Log what comes. Never leaves by the interpreter's own end, where the SDK would wait for its server again."""
    output = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    code = NO_START
    try:
        import wandb

        options = json.loads(sys.stdin.readline())
        run = wandb.init(settings=wandb.Settings(**options.pop("settings")), **options)
        code = 1
        run.define_metric("*", step_metric="epoch")
        for line in sys.stdin:
            run.log(json.loads(line))
        run.finish()
        code = 0
    except Exception as error:  # the SDK raises many kinds
        output.write(f"{type(error).__name__}: {error}".split("\n")[0][:200])
        output.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
