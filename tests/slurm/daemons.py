"""A real Slurm of two nodes on this machine: munge, slurmctld, two slurmd, in a separate folder.

No systemd, no cgroups, no accounting database (so no sacct): what Debian's slurm-wlm and munge
start on one machine. Needs root, as slurmd does.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
NODES = ("pa1", "pa2")
CPUS = 2  # per node, as configured; the machine may have fewer

CONFIG = """\
ClusterName=pa
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldPort={port}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=2,requeue_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdTimeout=300
MessageTimeout=60
KillWait=5
InactiveLimit=0
JobRequeue=1
PropagateResourceLimits=NONE
SlurmctldDebug=info
SlurmdDebug=info
{nodes}
PartitionName=cpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} State=UNKNOWN"
)


def why_not() -> str | None:
    """Why no Slurm can be started here; None where it can."""
    lacking = [name for name in PROGRAMS if _program(name) is None]
    if lacking:
        return f"Slurm is not installed ({', '.join(lacking)} missing): apt install slurm-wlm munge"
    if os.geteuid() != 0:
        return "starting slurmd needs root"
    return None


@dataclass
class Cluster:
    """Running daemons; `environment` makes the client programs speak to them."""

    folder: Path
    environment: dict[str, str]
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def ask(self, *words: object) -> str:
        """Run a client program of Slurm and return what it prints."""
        done = subprocess.run(
            [*map(str, words)],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{words}: {done.stderr.strip()}")
        return done.stdout

    def queue(self, states: str = "all") -> list[tuple[str, str, str]]:
        """(job or job_task, state, node) of every job of the queue that is not over."""
        text = self.ask("squeue", "--noheader", "-r", "-o", "%i|%T|%N", "-t", states)
        jobs = [tuple(line.split("|")) for line in text.split()]
        over = {"COMPLETED", "CANCELLED", "FAILED", "NODE_FAIL", "TIMEOUT"}
        return [(job, state, node) for job, state, node in jobs if state not in over]

    def log(self) -> str:
        """The ends of all daemons' logs."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"== {p.name}\n{p.read_text(errors='replace')[-3000:]}" for p in logs)

    def wait(self, what: Callable[[], bool], seconds: float = 120) -> None:
        """Wait until `what` is true; the daemons' logs are in the error where it never is."""
        end = time.monotonic() + seconds
        while not what():
            if time.monotonic() > end:
                raise TimeoutError(f"not within {seconds} s; queue: {self.queue()}\n{self.log()}")
            time.sleep(0.1)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """Start the daemons, wait until both nodes are idle, stop them at the end."""
    host = socket.gethostname().split(".")[0]
    ports = _free_ports(1 + len(NODES))
    nodes = "\n".join(
        NODE.format(name=name, host=host, port=port, cpus=CPUS)
        for name, port in zip(NODES, ports[1:], strict=True)
    )
    config = folder / "slurm.conf"
    config.write_text(CONFIG.format(host=host, folder=folder, port=ports[0], nodes=nodes))
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    cluster = Cluster(folder, {**os.environ, "SLURM_CONF": str(config)})
    try:
        _start(
            cluster,
            "munged",
            "--foreground",
            "--force",
            f"--socket={folder}/munge.socket",
            f"--key-file={key}",
            f"--pid-file={folder}/munged.pid",
            f"--log-file={folder}/munged-own.log",
            f"--seed-file={folder}/munged.seed",
        )
        cluster.wait((folder / "munge.socket").exists, 20)
        _start(cluster, "slurmctld", "-D", "-c", "-f", str(config))
        for name in NODES:
            _start(cluster, "slurmd", "-D", "-c", "-N", name, "-f", str(config), tag=name)
        cluster.wait(lambda: _idle(cluster) == len(NODES), 60)
        yield cluster
    finally:
        _stop(cluster)


def _idle(cluster: Cluster) -> int:
    try:
        return cluster.ask("sinfo", "--noheader", "-N", "-o", "%N %T").count(" idle")
    except RuntimeError:  # slurmctld does not answer yet
        return 0


def _start(cluster: Cluster, program: str, *words: str, tag: str = "") -> None:
    path = _program(program)
    assert path is not None
    with (cluster.folder / f"{program}{tag}.log").open("wb") as log:
        cluster.daemons.append(
            subprocess.Popen(
                [path, *words],
                env=cluster.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        )


def _stop(cluster: Cluster) -> None:
    """Cancel what runs, then end the daemons, the last started first."""
    with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
        for job in {job.partition("_")[0] for job, _, _ in cluster.queue()}:
            cluster.ask("scancel", "--signal=KILL", job)
            cluster.ask("scancel", job)
        cluster.wait(lambda: not cluster.queue(), 30)
    for daemon in reversed(cluster.daemons):
        daemon.send_signal(signal.SIGTERM)
    for daemon in cluster.daemons:
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def _free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for listening in sockets:
            listening.bind(("127.0.0.1", 0))
        return [int(listening.getsockname()[1]) for listening in sockets]
