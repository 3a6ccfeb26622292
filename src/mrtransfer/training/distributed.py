"""Data-parallel training: several processes share every batch, and the first of them leads.

The leader runs the whole program. The others only take part in its trainings: they are handed what a training starts
from, and whatever must not be done twice (choosing, measuring, writing files) is done by the leader alone. They are
either helpers that the leader starts on its own machine (``devices``), or were started together with it by ``torchrun``
or ``srun``, on any number of machines that share their files.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
import torch.distributed as dist

from mrtransfer.common.errors import UserError
from mrtransfer.training.part import ALONE, Part
from mrtransfer.training.team import PRESENT, Team, meet_by_environment, meet_in_folder

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
    return PRESENT[0].part.rank if PRESENT else launched().rank


def world_size() -> int:
    """How many processes there are."""
    return PRESENT[0].part.world if PRESENT else launched().world


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
    return PRESENT[0] if PRESENT else meet_by_environment(launched())


def _helped(devices: int, device: str) -> Team:
    """The leader of a team of ``devices`` processes on this machine, started where they are not there yet."""
    kind = torch.device(device).type
    if PRESENT and (PRESENT[0].part.world != devices or torch.device(PRESENT[0].device).type != kind):
        PRESENT[0].close()
    elif PRESENT and any(helper.poll() is not None for helper in PRESENT[0].helpers):
        PRESENT[0].abandon()
    if PRESENT:
        return PRESENT[0]
    folder = Path(tempfile.mkdtemp(prefix="mrtransfer-"))
    threads = max(torch.get_num_threads() // devices, 1)
    command = [sys.executable, "-m", "mrtransfer.training.helper", str(folder), str(devices), device]
    helpers = [
        subprocess.Popen(
            [*command, str(number), str(threads)],
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.PIPE,  # closes when this process ends, however it ends
            stdout=subprocess.DEVNULL,
        )
        for number in range(1, devices)
    ]
    team = Team(Part(0, devices), device, helpers=helpers, folder=folder, served=True)
    try:
        return meet_in_folder(team, folder)
    except BaseException:
        team.abandon()
        raise
