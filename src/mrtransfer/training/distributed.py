"""Data-parallel training: several processes share every batch, and the first of them leads.

The leader runs the whole program. The others only take part in its trainings: they are handed what a training starts
from, and whatever must not be done twice (choosing, measuring, writing files) is done by the leader alone. They are
either helpers that the leader starts on its own machine (``devices``), or were started together with it by ``torchrun``
or ``srun``, on any number of machines that share their files.
"""

import atexit
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments import ClusterEnvironment, SLURMEnvironment

from mrtransfer.common.errors import UserError
from mrtransfer.training.handing import handed, packed
from mrtransfer.training.part import ALONE, Part

_TIMEOUT = timedelta(days=7)
"""How long processes wait for each other. One that ends is noticed at once; the leader may be busy for days."""

Work = Callable[["Team"], Any]


@dataclass
class Team:
    """The processes of a training, as one of them sees it: which it is, and its ``device``."""

    part: Part = ALONE
    device: str = "cpu"
    control: Any = None
    helpers: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    folder: Path | None = None
    served: bool = False  # the others only wait for work; they do not run this program themselves
    at_work: bool = False  # and so an error here leaves the others anywhere

    def lead(self, work: Work) -> None:
        """Have the other processes do ``work``, which can be pickled; :class:`UserError` where one of them cannot."""
        self._send(packed(work))
        self._check(None)
        self.at_work = True

    def follow(self) -> Work | None:
        """What the leader wants done next; None where it is done."""
        while True:
            box: list[Any] = [None]
            dist.broadcast_object_list(box, src=0, group=self.control)
            if box[0] is None:
                return None
            work, problem = handed(box[0])
            with suppress(UserError):  # the leader says it
                self._check(problem)
                self.at_work = True
                return work

    def _send(self, message: bytes | None) -> None:
        dist.broadcast_object_list([message], src=0, group=self.control)

    def _check(self, problem: str | None) -> None:
        problems: list[str | None] = [None] * self.part.world
        dist.all_gather_object(problems, problem, group=self.control)
        for number, found in enumerate(problems):
            if found is not None:
                raise UserError(f"process {number} of {self.part.world} cannot take part in the training: {found}")

    def close(self) -> None:
        """Let the others go, if they wait for work."""
        with suppress(RuntimeError):
            if self.served and self.part.rank == 0:
                self._send(None)
        self._leave(seconds=10)

    def abandon(self) -> None:
        """After an error here: the others may be anywhere in their work."""
        for helper in self.helpers:
            helper.kill()
        self._leave(seconds=10)

    def lost(self) -> int | None:
        """The number of a helper that has ended, if one has."""
        for number, helper in enumerate(self.helpers, start=1):
            with suppress(subprocess.TimeoutExpired):
                helper.wait(timeout=2)
                return number
        return None

    def _leave(self, seconds: float) -> None:
        if _present and _present[0] is self:
            _present.clear()
            with suppress(RuntimeError):
                dist.destroy_process_group()
        for helper in self.helpers:
            with suppress(subprocess.TimeoutExpired, OSError):
                if helper.stdin is not None:
                    helper.stdin.close()
                helper.wait(timeout=seconds)
            helper.kill()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


_present: list[Team] = []  # the one that this process is in
_broken: list[str] = []  # why it cannot be in one any more


def launched() -> Part:
    """This process's part among those that ``torchrun`` or ``srun`` started together; alone where they did not."""
    env = os.environ
    if "RANK" in env and "WORLD_SIZE" in env and "MASTER_ADDR" in env:
        return Part(int(env["RANK"]), int(env["WORLD_SIZE"]))
    if "SLURM_PROCID" in env and int(env.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return Part(int(env["SLURM_PROCID"]), int(env["SLURM_STEP_NUM_TASKS"]))
    return ALONE


def rank() -> int:
    """The number of this process, from 0; 0 leads."""
    return _present[0].part.rank if _present else launched().rank


def world_size() -> int:
    """How many processes there are."""
    return _present[0].part.world if _present else launched().world


def is_main() -> bool:
    """Whether this process leads: it alone decides, measures and writes."""
    return rank() == 0


def barrier() -> None:
    """Wait until all processes that were started together are here; for programs that all of them run."""
    if launched().world > 1:
        dist.barrier(group=_joined().control)


def serve() -> bool:
    """Where this is not the leader: take part in its trainings until it is done, and say True.

    For programs that the leader alone runs, though all processes were started with them::

        if serve():
            return
    """
    if launched().world == 1:
        return False
    team = _joined()
    team.served = True
    if team.part.rank == 0:
        return False
    take_part(team)
    return True


def take_part(team: Team) -> None:
    """Do what the leader asks for, until it is done."""
    while (work := team.follow()) is not None:
        with suppress(UserError):  # it occurs in all processes, and the leader says it
            work(team)
    team.close()


@contextmanager
def team_of(devices: int, device: str) -> Iterator[Team]:
    """The processes for a training on ``devices`` of the kind ``device``: those that were started together, else
    helpers that are started now and kept for the next training.

    Raises :class:`UserError` where ``devices`` are not there, or not as many as were started, and where one is lost.
    """
    _check_devices(devices, device)
    team = _joined() if launched().world > 1 else _helped(devices, device) if devices > 1 else Team(device=device)
    team.device = _own_device(device, team.part)
    threads = torch.get_num_threads()
    if team.helpers:
        torch.set_num_threads(max(threads // devices, 1))
    try:
        yield team
        team.at_work = False
    except BaseException as error:
        number = team.lost() if isinstance(error, RuntimeError) else None
        if not team.at_work and number is None:
            raise
        if launched().world > 1:
            _broken.append("an earlier training ended with an error")
        team.abandon()
        if number is not None:
            raise UserError(
                f"process {number} of {team.part.world} of the training ended unexpectedly, perhaps for want of "
                "memory; run the same command again to go on, with fewer devices or a smaller batch"
            ) from error
        raise
    finally:
        torch.set_num_threads(threads)


def _check_devices(devices: int, device: str) -> None:
    part = launched()
    if devices < 1:
        raise UserError(f"devices: is {devices}; it must be 1 or more")
    if part.world > 1 and devices not in (1, part.world):
        raise UserError(f"devices: is {devices}, but {part.world} processes were started; leave it out")
    if torch.device(device).type == "cuda" and part.world == 1 and devices > torch.cuda.device_count():
        raise UserError(f"devices: is {devices}, but this machine has {torch.cuda.device_count()} GPU(s)")


def _own_device(device: str, part: Part) -> str:
    """Each process its own GPU, counted on its own machine."""
    if part.world == 1 or torch.device(device).type != "cuda":
        return device
    local = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", part.rank)))
    return f"cuda:{local % torch.cuda.device_count()}"  # srun may show each process its own GPU only


def _joined() -> Team:
    """The team of all processes that were started together."""
    if _broken:
        raise UserError(f"{_broken[0]}, after which the other processes cannot go on; run the same command again")
    if not _present:
        part = launched()
        if "RANK" not in os.environ:
            _name_slurms_meeting_place()
        dist.init_process_group(_backend(), rank=part.rank, world_size=part.world, timeout=_TIMEOUT)
        _enter(Team(part))
    return _present[0]


def _name_slurms_meeting_place() -> None:
    """The first machine of the step, and a port that follows from the job's number; the user's choice comes first."""
    env = os.environ
    nodes = env.get("SLURM_STEP_NODELIST", env.get("SLURM_NODELIST", "127.0.0.1"))
    env.setdefault("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(nodes))
    env.setdefault("MASTER_PORT", str(15000 + int(env.get("SLURM_JOB_ID", "0")[-4:])))


def _helped(devices: int, device: str) -> Team:
    """The leader of a team of ``devices`` processes on this machine, started where they are not there yet."""
    kind = torch.device(device).type
    if _present and (_present[0].part.world != devices or torch.device(_present[0].device).type != kind):
        _present[0].close()
    elif _present and any(helper.poll() is not None for helper in _present[0].helpers):
        _present[0].abandon()
    if _present:
        return _present[0]
    folder = Path(tempfile.mkdtemp(prefix="mrtransfer-"))
    environment = {**os.environ, **_loopback()}
    threads = max(torch.get_num_threads() // devices, 1)
    command = [sys.executable, "-m", "mrtransfer.training.helper", str(folder / "meet"), str(devices), device]
    helpers = [
        subprocess.Popen(
            [*command, str(number), str(threads)],
            env={**environment, "OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.PIPE,  # closes when this process ends, however it ends
            stdout=subprocess.DEVNULL,
        )
        for number in range(1, devices)
    ]
    team = Team(Part(0, devices), device, helpers=helpers, folder=folder, served=True)
    try:
        meet(team, folder / "meet")
    except RuntimeError as error:
        team.abandon()
        raise UserError(f"devices: the {devices} processes of the training could not connect: {error}") from error
    return team


def meet(team: Team, path: Path) -> None:
    """Connect the processes of one machine over a file; nothing listens to other machines."""
    before = dict(os.environ)
    os.environ.update(_loopback())
    try:
        store = dist.FileStore(str(path), team.part.world)
        dist.init_process_group(
            _backend(), store=store, rank=team.part.rank, world_size=team.part.world, timeout=_TIMEOUT
        )
    finally:
        for name in _loopback():
            if name not in before:
                os.environ.pop(name, None)
    _enter(team)


def _enter(team: Team) -> None:
    team.control = dist.new_group(backend="gloo", timeout=_TIMEOUT)
    _present.append(team)
    atexit.register(_leave_at_exit)


def _leave_at_exit() -> None:
    for team in list(_present):
        team.close()


def _backend() -> str:
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"


def _loopback() -> dict[str, str]:
    """The setting that keeps gloo on this machine, unless the user has chosen an interface."""
    name = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
    return {"GLOO_SOCKET_IFNAME": name} if name and "GLOO_SOCKET_IFNAME" not in os.environ else {}


class Connected(ClusterEnvironment):
    """What Lightning asks about processes that are connected already; each counts as a machine with one device."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.part = part

    @property
    def creates_processes_externally(self) -> bool:
        """Nothing is to be started."""
        return True

    @property
    def main_address(self) -> str:
        """Not asked for: the processes are connected."""
        return "localhost"

    @property
    def main_port(self) -> int:
        """Not asked for: the processes are connected."""
        return 0

    @staticmethod
    def detect() -> bool:
        """Never chosen by Lightning itself."""
        return False

    def world_size(self) -> int:
        """How many processes there are."""
        return self.part.world

    def set_world_size(self, size: int) -> None:
        """It is known."""

    def global_rank(self) -> int:
        """Which process this is."""
        return self.part.rank

    def set_global_rank(self, rank: int) -> None:
        """It is known."""

    def local_rank(self) -> int:
        """The only one of its machine."""
        return 0

    def node_rank(self) -> int:
        """Which process this is."""
        return self.part.rank
