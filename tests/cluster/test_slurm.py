"""cluster/slurm.sh: its text, and two nodes of a real Slurm where one is installed."""

import re
import subprocess
import sys
from pathlib import Path

import machines
import pytest
from machines import wait_for
from packs import write_small_pack

from nrh_dist.engine import checkpoint

SCRIPT = Path(__file__).parents[2] / "cluster" / "slurm.sh"
DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
CONF = """\
ClusterName=nrh
SlurmctldHost=nrh1(10.99.0.1)
SlurmUser=root
AuthInfo=socket=/run/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
StateSaveLocation=/run/slurmctld
SlurmdSpoolDir=/run/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmdParameters=config_overrides
KillWait=15
NodeName=nrh1 NodeAddr=10.99.0.1 CPUs=8 RealMemory=32000 Gres=gpu:1
NodeName=nrh2 NodeAddr=10.99.0.2 CPUs=8 RealMemory=32000 Gres=gpu:1
PartitionName=main Nodes=ALL Default=YES
"""
# A child of its first process, with what sbatch hands on to the jobs.
START = "cd {folder}; export SLURM_CONF={folder}/slurm.conf; (setsid {command} > {folder}/{log} 2>&1 < /dev/null &)"


def test_bash_and_sbatch_read_it():
    """A directive below the first command would be a comment."""
    assert subprocess.run(["bash", "-n", str(SCRIPT)]).returncode == 0
    lines = SCRIPT.read_text().splitlines()
    commands = [place for place, line in enumerate(lines) if line and not line.startswith("#")]
    directives = {line.split()[1]: place for place, line in enumerate(lines) if line.startswith("#SBATCH")}
    assert {"--requeue", "--signal=B:TERM@120", "--open-mode=append"} <= set(directives)
    assert max(directives.values()) < commands[0]


@pytest.mark.parametrize("words", [["train"], []])
def test_outside_of_slurm_it_says_so(words):
    done = subprocess.run(["bash", str(SCRIPT), *words], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert done.returncode == 1 and "sbatch cluster/slurm.sh VERB" in done.stderr


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """Two machines under Slurm; a function that runs a command where jobs are sent from."""
    reason = machines.missing()
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    if not reason and (lacking := [one for one in DAEMONS if not machines.found(one)]):
        reason = f"not installed: {', '.join(lacking)} (Debian: slurm-wlm munge)"
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "slurm.conf").write_text(CONF)
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")
    (folder / "munge.key").write_bytes(bytes(range(128)))
    (folder / "munge.key").chmod(0o400)
    with machines.cluster(folder, [1, 2], cpus=1) as cluster:
        write_small_pack(cluster.shared, train=120)

        def shell(command, timeout=120):
            places = f"SLURM_CONF={folder}/slurm.conf NRH_PROJECT={machines.ROOT} NRH_VENV={sys.prefix}"
            cache = f"NRH_CACHE={cluster.shared}/cache SLURM_TMPDIR=/run PATH={path}"
            return cluster.head.shell(f"cd {cluster.shared}; export {places} {cache}; {command}", timeout)

        for machine in cluster.machines:
            munged = f"munged --foreground --force --key-file={folder}/munge.key --socket=/run/munge.socket"
            munged += " --pid-file=/run/munged.pid --seed-file=/run/munged.seed --log-file=/run/munged.log"
            daemons = [munged, *(["slurmctld -D"] if machine is cluster.head else []), f"slurmd -D -N {machine.name}"]
            for daemon in daemons:
                log = f"{machine.name}-{daemon.split()[0]}.log"
                machine.shell(f"export PATH={path}; {START.format(folder=folder, command=daemon, log=log)}")
        try:
            wait_for(lambda: shell("sinfo -h -o %T%D || true").split() == ["idle2"], "two idle nodes", 60)
        except AssertionError:
            print({log.name: log.read_text()[-2000:] for log in folder.glob("*.log")})
            raise
        yield cluster, shell


def send(shell, *words):
    """Its number."""
    return int(re.findall(r"\d+", shell(f"sbatch {' '.join(words)}"))[0])


def state(shell, job):
    told = shell(f"scontrol show job {job}")
    return re.findall(r"JobState=(\w+)", told)[0], re.findall(r"ExitCode=(\S+)", told)[0]


def left(cluster):
    """Processes of Ray, on all machines."""
    return [process for machine in cluster.machines for process in machine.processes("raylet")]


@pytest.mark.cluster
def test_it_saves_waits_in_the_queue_goes_on_and_leaves_nothing(slurm):
    cluster, shell = slurm
    shell(f"sbatch --test-only {SCRIPT} train")
    model = "preset=tiny model.name=dih_nm model.width=0.1 data.val_fraction=0.3 train.batch_size=4"
    places = f"data.pack={cluster.shared}/pack run.root={cluster.shared}/runs"
    job = send(shell, "--cpus-per-task=1", str(SCRIPT), "train", model, places, "run.name=long scale.workers=2",
               "scale.gpus_per_worker=0 train.epochs=5000")  # fmt: skip
    folder, log = cluster.shared / "runs" / "long", cluster.shared / f"nrh-{job}.log"

    def trains():
        assert state(shell, job)[0] in ("PENDING", "RUNNING", "CONFIGURING"), log.read_text()
        return list(folder.glob("checkpoints/*/manifest.json"))

    wait_for(trains, "a checkpoint")
    own = cluster.shared / f".nrh-{job}"
    assert [oct(path.stat().st_mode)[-3:] for path in (own, own / "token")] == ["700", "600"]
    assert all(machine.processes("RayTrainWorker") for machine in cluster.machines), "one worker a node"
    shell(f"scancel --batch --signal=TERM {job}")
    wait_for(lambda: state(shell, job)[0] == "PENDING" and not left(cluster), "the job in the queue again")
    said = log.read_text()
    assert re.search(r"stopped at step \d+, as asked", said) and "waits in the queue" in said, said
    assert not own.exists()
    reached = checkpoint.newest(folder).path.name
    shell(f"scontrol update jobid={job} StartTime=now")
    wait_for(lambda: f"continuing from {reached}" in log.read_text(), "the same job, going on")
    shell(f"scancel {job}")
    wait_for(lambda: state(shell, job)[0] == "CANCELLED" and not left(cluster), "its end")
    wait_for(lambda: not own.exists(), "the end of its token")


@pytest.mark.cluster
def test_it_ends_as_its_command_does(slurm):
    cluster, shell = slurm
    wrong = send(shell, "--cpus-per-task=1", str(SCRIPT), "train model.nmae=dih_nm")
    wait_for(lambda: state(shell, wrong) == ("FAILED", "1:0"), "a failed job")
    assert "Did you mean" in (cluster.shared / f"nrh-{wrong}.log").read_text()
    right = send(shell, "--cpus-per-task=1", "--nodes=1", str(SCRIPT), "data sample", str(cluster.shared / "sample"))
    wait_for(lambda: state(shell, right) == ("COMPLETED", "0:0"), "a job done")
    assert (cluster.shared / "sample" / "iharmony4").is_dir()
    assert not left(cluster) and not list(cluster.shared.glob(".nrh-*"))
