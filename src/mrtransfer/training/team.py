"""The processes of a data-parallel training, and how they find each other."""

import atexit
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments import SLURMEnvironment

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
        if PRESENT and PRESENT[0] is self:
            PRESENT.clear()
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


PRESENT: list[Team] = []
"""The team that this process is in; empty where it is in none."""


def meet_by_environment(part: Part) -> Team:
    """Connect the processes that ``torchrun`` or ``srun`` started together."""
    if "RANK" not in os.environ:
        _name_slurms_meeting_place()
    dist.init_process_group(_backend(), rank=part.rank, world_size=part.world, timeout=_TIMEOUT)
    return _entered(Team(part))


def _name_slurms_meeting_place() -> None:
    """The first machine of the step, and a port that follows from the job's number; the user's choice comes first."""
    env = os.environ
    nodes = env.get("SLURM_STEP_NODELIST", env.get("SLURM_NODELIST", "127.0.0.1"))
    env.setdefault("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(nodes))
    env.setdefault("MASTER_PORT", str(15000 + int(env.get("SLURM_JOB_ID", "0")[-4:])))


def meet_in_folder(team: Team, folder: Path) -> Team:
    """Connect the processes of one machine over files in ``folder``; nothing listens to other machines.

    Raises :class:`UserError` where a helper ends before it is there.
    """
    (folder / f"ready {team.part.rank}").touch()
    while len(list(folder.glob("ready *"))) < team.part.world:
        if any(helper.poll() is not None for helper in team.helpers):
            raise UserError(
                f"devices: one of the {team.part.world} processes of the training could not start: see above"
            )
        time.sleep(0.01)
    chosen = _loopback()
    os.environ.update(chosen)
    try:
        store = dist.FileStore(str(folder / "meet"), team.part.world)
        dist.init_process_group(
            _backend(), store=store, rank=team.part.rank, world_size=team.part.world, timeout=_TIMEOUT
        )
        return _entered(team)
    finally:
        for name in chosen:
            del os.environ[name]


def _entered(team: Team) -> Team:
    team.control = dist.new_group(backend="gloo", timeout=_TIMEOUT)
    if not PRESENT:
        atexit.register(_leave_at_exit)
    PRESENT.append(team)
    return team


def _leave_at_exit() -> None:
    for team in list(PRESENT):
        team.close()


def _backend() -> str:
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"


def _loopback() -> dict[str, str]:
    """The setting that keeps gloo on this machine, unless the user has chosen an interface."""
    name = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
    return {"GLOO_SOCKET_IFNAME": name} if name and "GLOO_SOCKET_IFNAME" not in os.environ else {}
