"""The losses of the first steps of every model on the embedded sample data, as they were when golden.json was made.

    python tests/engine/golden.py            makes golden.json anew: after a change that is meant to change the maths
    python tests/engine/golden.py FILE       writes the trace of this code to FILE

Both within half a minute on one core. The process starts itself again with kernels that most x86 machines share
(AVX2, one thread), so that a trace says as much as it can about the code and as little as it can about the machine.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).with_name("golden.json")
ALONE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
KERNELS = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",
}
PHOTOS = 9
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
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }  # this checkout's code
    environment = os.environ | ALONE | kernels | own
    subprocess.run([sys.executable, __file__, "--here", str(path)], env=environment, check=True)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _trace() -> dict[str, Any]:
    """``{"machine": ..., "data": the pack's digest, "losses": {model: [step: [sample]]}, "validation"}``."""
    import torch

    from nrh_dist.data.layouts import Source, index
    from nrh_dist.data.pack import write_pack
    from nrh_dist.data.synthetic import write_sample

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_sample(root, say=_mute, train_photos=PHOTOS, test_photos=2)
        pack = write_pack(index(Source(root / "iharmony4")), root / "pack", 64, 1, _mute)
        traced = {name: _traced(root, pack.root, name, words) for name, words in MODELS.items()}
    return {
        "machine": _machine(),
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


def _machine() -> dict[str, str]:
    import torch

    lines = [line.split(":") for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()]
    facts = {key.strip(): value.strip() for key, value in lines}
    cpu = ", ".join(f"{key} {facts.get(key, '?')}" for key in ("model name", "cpu family", "model", "stepping"))
    return {"cpu": cpu, "torch": torch.__version__, "kernels": torch.backends.cpu.get_cpu_capability()}


def _mute(_: str) -> None:
    pass


def main(words: list[str]) -> None:
    """See the top of this file."""
    if words[:1] == ["--here"]:
        Path(words[1]).write_text(json.dumps(_trace(), indent=0) + "\n")
        return
    out = Path(words[0]) if words else GOLDEN
    with tempfile.TemporaryDirectory() as temporary:
        found = trace_in_own_process(Path(temporary) / "trace.json")
    out.write_text(json.dumps(found, indent=0) + "\n")
    print(f"{sum(map(len, found['losses'].values()))} steps of {len(found['losses'])} models in {out}")


if __name__ == "__main__":
    main(sys.argv[1:])
