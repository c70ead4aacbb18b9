"""Machines on one Linux box: namespaces of processes, network, mounts and names, each with its own sshd, Ray and home.

    python tests/cluster/machines.py        # every test that needs them, as root: about ten minutes on two cores

They share the disk, as machines with NFS do, and ask no name server. Nothing is left behind: the end of a machine's
first process, or of the process that started it, ends all of them, and their network goes with them. Needs sshd, rsync
and iproute2 (Debian: apt-get install openssh-server rsync iproute2), and no network; the tests of Slurm need it, too
(slurm-wlm munge), and skip without.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import yaml

ROOT = Path(__file__).parents[2]
TOOLS = ("sshd", "ssh", "ssh-keygen", "rsync", "ip", "unshare", "nsenter", "bash")
NETWORK = "10.99.0."
LAPTOP = 254
DEADLINE = 120.0  # seconds

# The first process of a machine: its end, or that of its standard input, ends the machine. bash, as it buries orphans.
FIRST = """\
mount -t tmpfs tmpfs /run && mkdir /run/sshd && mount -t tmpfs -o size=2g tmpfs /dev/shm &&
mount --bind "$1/ray" /tmp/ray && mount --bind "$1/passwd" /etc/passwd && mount --bind "$1/hosts" /etc/hosts &&
mount --bind /dev/null /etc/resolv.conf &&
hostname "$2" && ip link set lo up || exit 1
"$3" -D -e -f "$1/sshd_config" 2> "$1/sshd.log" &
read -r _
"""
SSHD = """\
Port 22
HostKey {folder}/host_key
AuthorizedKeysFile {key}.pub
PidFile none
UsePAM no
UseDNS no
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
"""


def missing() -> str:
    """Why machines cannot be made here, or ""."""
    if os.getuid():
        return "making machines takes root"
    if lacking := [tool for tool in TOOLS if not found(tool)]:
        return f"not installed: {', '.join(lacking)}"
    tried = subprocess.run(["unshare", "--net", "--pid", "--mount", "--uts", "--fork", "true"], capture_output=True)
    return "this kernel or container allows no namespaces" if tried.returncode else ""


def found(tool: str) -> str | None:
    """Where the program ``tool`` is, also among those of root."""
    return shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


class Machine:
    """One machine with the host name ``name``, below ``folder``; ``number`` is the end of its address, None: loopback.

    ``cpus`` is what Ray finds there.
    """

    def __init__(self, folder: Path, name: str, number: int | None, key: Path, cpus: int) -> None:
        self.folder, self.name, self.number = folder / name, name, number
        self.address = "127.0.0.1" if number is None else f"{NETWORK}{number}"
        self.process: subprocess.Popen[bytes] | None = None
        self.home = self.folder / "home"
        (self.folder / "ray").mkdir(parents=True)
        self.home.mkdir()
        (self.home / ".bashrc").write_text(f"export RAY_OVERRIDE_RESOURCES='{{\"CPU\": {cpus}}}'\n")
        (self.folder / "passwd").write_text(
            f"root:x:0:0:root:{self.home}:/bin/bash\nsshd:x:100:65534::/run/sshd:/bin/false\n"
        )
        # As Debian and Ubuntu write it: a machine's own name means its loopback.
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {name}\n")
        (self.folder / "sshd_config").write_text(SSHD.format(folder=self.folder, key=key))
        generate_key(self.folder / "host_key")

    @property
    def first(self) -> psutil.Process:
        """Its first process, by the host's numbers."""
        assert self.process
        (child,) = psutil.Process(self.process.pid).children()
        return child

    @property
    def is_up(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, bridge: int | None = None) -> None:
        """Start it, also again with the disk it had; ``bridge`` is a process in the network it belongs to."""
        assert not self.is_up
        Path("/tmp/ray").mkdir(exist_ok=True)  # to mount on
        words = [
            "unshare",
            *("--net", "--pid", "--mount", "--uts", "--ipc"),
            *("--fork", "--kill-child", "--mount-proc"),
        ]
        sshd = str(found("sshd"))
        arguments = ["bash", "-c", FIRST, "first", str(self.folder), self.name, sshd]
        (self.folder / "sshd.log").write_text("")
        with (self.folder / "first.log").open("w") as log:
            self.process = subprocess.Popen([*words, *arguments], stdin=subprocess.PIPE, stdout=log, stderr=log)
        wait_for(lambda: psutil.Process(self.process.pid).children(), f"the first process of {self.name}")
        if bridge is not None:
            self._join(bridge)
        wait_for(lambda: "listening" in (self.folder / "sshd.log").read_text(), f"sshd of {self.name}")

    def _join(self, bridge: int) -> None:
        link = f"m{self.number}-{time.monotonic_ns() % 10**8}"  # that of an earlier life may still be on its way out
        inside, outside = (
            ("nsenter", "--target", str(self.first.pid), "--net"),
            ("nsenter", "--target", str(bridge), "--net"),
        )
        peer = ("peer", "name", "eth0", "netns", str(self.first.pid))
        run(*outside, "ip", "link", "add", link, "type", "veth", *peer)
        run(*outside, "ip", "link", "set", link, "master", "bridge", "up")
        run(*inside, "ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        run(*inside, "ip", "link", "set", "eth0", "up")
        run(*inside, "ip", "route", "add", "default", "via", f"{NETWORK}{LAPTOP}")

    def inside(self) -> list[str]:
        """What makes a command run on it."""
        return ["nsenter", "--target", str(self.first.pid), "--net", "--pid", "--mount", "--uts", "--ipc"]

    def shell(self, command: str, timeout: float = DEADLINE) -> str:
        """What ``command`` prints in a login of its user."""
        words = [*self.inside(), "env", f"HOME={self.home}", "bash", "-c", f". ~/.bashrc; {command}"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def processes(self, word: str) -> list[psutil.Process]:
        """Its processes whose command line holds ``word``."""
        found = []
        with suppress(psutil.Error, ValueError):
            for process in self.first.children(recursive=True):
                with suppress(psutil.Error):
                    if any(word in part for part in process.cmdline()):
                        found.append(process)
        return found

    def kill(self) -> None:
        """Pull the plug: SIGKILL to its first process, and the kernel ends all others."""
        assert self.process
        with suppress(psutil.Error, ValueError):
            self.first.send_signal(signal.SIGKILL)
        self.process.wait(timeout=DEADLINE)


class Cluster:
    """Machines and a laptop beside them, which holds the cluster file and speaks to them over ssh."""

    def __init__(self, folder: Path, numbers: Sequence[int | None], cpus: int) -> None:
        self.folder, self.shared = folder, folder / "shared"
        self.shared.mkdir()
        self.key = folder / "key"
        generate_key(self.key)
        self.home = folder / "laptop"
        (self.home / "ray").mkdir(parents=True)
        self.laptop: subprocess.Popen[bytes] | None = None
        self.machines = [
            Machine(folder, f"nrh{place}", number, self.key, cpus) for place, number in enumerate(numbers, 1)
        ]
        self.file = folder / "local.yaml"

    @property
    def head(self) -> Machine:
        return self.machines[0]

    def start(self) -> None:
        """Start the laptop and all machines. On loopback the head is the laptop."""
        Path("/tmp/ray").mkdir(exist_ok=True)
        if self.head.number is not None:
            script = 'mount --bind "$1" /tmp/ray && ip link add bridge type bridge && ip link set bridge up && '
            script += f"ip address add {NETWORK}{LAPTOP}/24 dev bridge && ip link set lo up && echo up && "
            script += "exec cat > /dev/null"
            words = ["unshare", "--net", "--mount", "bash", "-c", script, "laptop", str(self.home / "ray")]
            self.laptop = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert self.laptop.stdout
            assert self.laptop.stdout.readline() == b"up\n"
        for machine in self.machines:
            self.revive(machine)

    def revive(self, machine: Machine) -> None:
        """Start ``machine``, which is down: it comes back with its disk."""
        machine.start(self.laptop.pid if self.laptop else None)

    def stop(self) -> None:
        """End all machines and the laptop."""
        for machine in self.machines:
            if machine.is_up:
                machine.kill()
        if self.laptop:
            self.laptop.kill()
            self.laptop.wait()

    def words(self, *command: str) -> list[str]:
        """``command`` as the user of the laptop gives it, in the project's folder."""
        inside = (
            ["nsenter", "--target", str(self.laptop.pid), "--net", "--mount"] if self.laptop else self.head.inside()
        )
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        plain = {"HOME": self.home, "PATH": path, "TERM": "dumb", "LANG": "C.UTF-8", "RAY_UP_enable_autoscaler_v2": "0"}
        return [
            *inside,
            "env",
            "-i",
            f"--chdir={ROOT}",
            *(f"{name}={value}" for name, value in plain.items()),
            *command,
        ]

    def ray(self, *command: str, timeout: float = 600, code: int = 0) -> str:
        """What ``ray COMMAND`` prints on the laptop; its exit code must be ``code``."""
        done = subprocess.run(self.words("ray", *command), capture_output=True, text=True, timeout=timeout)
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
        return done.stdout + done.stderr

    def up(self) -> float:
        """``ray get-auth-token`` and ``ray up`` with cluster/local.yaml, of these addresses; returns its seconds."""
        self.file.write_text(yaml.safe_dump(self.adapted(), sort_keys=False))
        self.ray("get-auth-token", "--generate")
        (self.home / ".ray" / "auth_token").chmod(0o600)
        started = time.monotonic()
        self.ray("up", "-y", str(self.file))
        wait_for(lambda: len(self.nodes()) == len(self.machines), "all machines in Ray")
        return time.monotonic() - started

    def adapted(self) -> dict:
        """cluster/local.yaml with the addresses, the user, the key and the folder of these machines.

        In the place of pip's hour of downloads, a link to the environment that this process runs in.
        """
        content = yaml.safe_load((ROOT / "cluster" / "local.yaml").read_text())
        workers = [machine.address for machine in self.machines[1:]]
        content["provider"] |= {"head_ip": self.head.address, "worker_ips": workers}
        content["auth"] = {"ssh_user": "root", "ssh_private_key": str(self.key)}
        content["min_workers"] = content["max_workers"] = len(workers)
        commands = [one.replace("/data/nrh", f"{self.shared}/nrh") for one in content["setup_commands"]]
        pip = [one for one in commands if ".venv/bin/pip" in one]
        assert len(pip) == 2
        commands[commands.index(pip[0])] = f"ln -sfn {sys.prefix} ~/.venv"
        commands.remove(pip[1])
        return {**content, "setup_commands": commands}

    def nodes(self) -> dict[str, str]:
        """Ray's living nodes: identifier by address."""
        script = (
            "import sys; from ray._raylet import GcsClient\n"
            "client = GcsClient(address=sys.argv[1])\n"
            "for one in client.get_all_node_info().values():\n"
            "    if one.state == 0: print(one.node_manager_address, one.node_id.hex())\n"
        )
        told = self.head.shell(f"python -c '{script}' {self.head.address}:6379")
        return dict(line.split() for line in told.splitlines())


@contextmanager
def cluster(folder: Path, numbers: Sequence[int | None], cpus: int) -> Iterator[Cluster]:
    """Machines that are up while the block runs; Ray is not started yet."""
    made = Cluster(folder, numbers, cpus)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def generate_key(path: Path) -> None:
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path))


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def wait_for(condition, what, deadline: float = DEADLINE):
    end = time.monotonic() + deadline
    while not (found := condition()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.1)
    return found


def job_status(made: Cluster, identifier: str) -> str:
    """What ``ray job status`` says of a job, in a line of its own for each state."""
    said = made.ray("exec", str(made.file), f"ray job status {identifier}")
    (line,) = [line.upper() for line in said.splitlines() if f"job '{identifier}'" in line.lower()]
    return next(word for word in ("SUCCEEDED", "FAILED", "STOPPED", "RUNNING", "PENDING") if word in line)


if __name__ == "__main__":
    if reason := missing():
        sys.exit(reason)
    tests = ["test_loopback.py", "test_machines.py", "test_no_shared_disk.py", "test_slurm.py"]
    words = [sys.executable, "-m", "pytest", "-m", "cluster", "-s", *(f"tests/cluster/{name}" for name in tests)]
    sys.exit(subprocess.run([*words, *sys.argv[1:]], cwd=ROOT).returncode)
