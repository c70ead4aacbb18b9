"""The losses of the first steps of every model on small sample pictures, as they were when golden.json was made.

    python tests/engine/golden.py            makes golden.json anew: after a change that is meant to change the maths
    python tests/engine/golden.py --confirm  adds this CPU to those that give golden.json to the last bit, if it does

Both within half a minute on one core. The process starts itself again with kernels that most x86 machines share
(AVX2, one thread), and the pictures are made of integers, because NumPy's and OpenCV's functions of floats round by the
CPU: so a trace says as much as it can about the code and as little as it can about the machine.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).with_name("golden.json")
ALONE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
KERNELS = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",
}
COMPOSITES = 28  # for 20 training rows, which are five steps
SAME, VALUES = ("torch", "kernels", "data"), ("losses", "validation")  # keys of a trace
COMMON = ("preset=tiny", "model.width=0.1", "model.dropout=true", "data.val_fraction=0.3", "train.batch_size=4")
FUSED = "model.fusion_width=8"
MODELS = {
    "dih_m": ("model.name=dih_m",),
    "dih_nm": ("model.name=dih_nm",),
    "ptc_dih": ("model.name=ptc_dih",),
    "ptc_att_dih": ("model.name=ptc_att_dih", FUSED),
    "gated": ("model.name=gated", FUSED, "loss.gate=1", "loss.harm=1", "data.clean_fraction=0.3"),
    "equivariance": ("model.name=ptc", "stage=equivariance"),
    "thresholds": ("model.name=ptc", "stage=thresholds"),
}


def trace_in_own_process(path: Path, kernels: dict[str, str] = KERNELS) -> dict[str, Any]:
    """The trace of this code, written to ``path``."""
    own = {
        "NRH_CACHE": str(path.parent / "cache"),
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests"))),  # this checkout's code
    }
    environment = os.environ | ALONE | kernels | own
    subprocess.run([sys.executable, __file__, "--here", str(path)], env=environment, check=True)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _trace() -> dict[str, Any]:
    """``{"cpus": [this one], "torch", "kernels", "data": digest, "losses": {model: [step: [sample]]}, ...``."""
    import torch
    from packs import write_small_pack

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        pack = write_small_pack(root, train=COMPOSITES)
        traced = {name: _traced(root, pack.root, name, words) for name, words in MODELS.items()}
    return {
        "cpus": [_cpu()],
        "torch": torch.__version__,
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "data": pack.digest,
        "losses": {name: losses for name, (losses, _) in traced.items()},
        "validation": {name: rows for name, (_, rows) in traced.items()},
    }


def _traced(root: Path, pack: Path, name: str, words: tuple[str, ...]) -> tuple[list[list[str]], list[str]]:
    """The losses of each step's samples, and val/loss of each epoch."""
    from recorded import around_losses

    from nrh_dist import config
    from nrh_dist.engine import run
    from nrh_dist.engine.dist import Place

    losses: list[list[str]] = []
    rows: list[str] = []
    real = run.task_of
    around_losses(lambda values, _: losses.append([one.hex() for one in values.tolist()]) or values)
    try:
        one = config.load(None, [*COMMON, "train.epochs=3", f"run.root={root}", f"run.name={name}", *words])
        run.run(one, pack, Place(), lambda row: rows.append(row["val/loss"].hex()), _mute)
    finally:
        run.task_of = real
    return losses, rows


def is_of(found: dict[str, Any], golden: dict[str, Any]) -> bool:
    """Whether the trace ``found`` must equal ``golden``: the same data and kernels, on a CPU that once gave it."""
    return set(found["cpus"]) <= set(golden["cpus"]) and all(found[key] == golden[key] for key in SAME)


def _cpu() -> str:
    lines = [line.split(":") for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()]
    facts = {key.strip(): value.strip() for key, value in lines}
    return ", ".join(f"{key} {facts.get(key, '?')}" for key in ("model name", "cpu family", "model", "stepping"))


def _mute(_: str) -> None:
    pass


def main(words: list[str]) -> None:
    """See the top of this file."""
    if words[:1] == ["--here"]:
        Path(words[1]).write_text(json.dumps(_trace(), indent=0) + "\n")
        return
    with tempfile.TemporaryDirectory() as temporary:
        found = trace_in_own_process(Path(temporary) / "trace.json")
    if words == ["--confirm"]:
        golden = json.loads(GOLDEN.read_text())
        if any(found[key] != golden[key] for key in (*SAME, *VALUES)):
            sys.exit(f"this machine gives another trace than {GOLDEN}")
        found["cpus"] = sorted({*golden["cpus"], *found["cpus"]})
    GOLDEN.write_text(json.dumps(found, indent=0) + "\n")
    print(f"{sum(map(len, found['losses'].values()))} steps of {len(found['losses'])} models in {GOLDEN}")


if __name__ == "__main__":
    main(sys.argv[1:])
