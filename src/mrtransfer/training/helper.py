"""A helper in data-parallel training: ``python -m mrtransfer.training.helper``, which only the leader starts.

Its standard input is a pipe from the leader, which closes when the leader ends, even where it was killed.
"""

import os
import signal
import sys
import threading
from pathlib import Path


def main() -> None:
    """Take part in the leader's trainings until it lets this process go."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the leader gets it too, and decides
    threading.Thread(target=_end_with_the_leader, daemon=True).start()
    import torch

    from mrtransfer.training.distributed import take_part
    from mrtransfer.training.part import Part
    from mrtransfer.training.team import Team, meet_in_folder

    folder, world, device, rank, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    own = f"cuda:{rank}" if torch.device(device).type == "cuda" else device
    team = Team(Part(int(rank), int(world)), own)
    take_part(meet_in_folder(team, Path(folder)))


def _end_with_the_leader() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main()
