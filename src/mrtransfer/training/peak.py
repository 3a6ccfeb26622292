"""Peak memory of a part of a program."""

import sys
from contextlib import suppress
from pathlib import Path

import torch


class Peak:
    """The most memory that this process held during some times, in MiB; memory-mapped pages count.

    Where the system does not forget an earlier peak (outside Linux), it is that of the process so far.
    """

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.most = 0.0
        self.gpu = 0.0

    def begin(self) -> None:
        """From now on."""
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def end(self) -> None:
        """Until now."""
        self.most = max(self.most, _peak_resident())
        if self.device.type == "cuda":
            self.gpu = max(self.gpu, torch.cuda.max_memory_allocated(self.device) / 2**20)

    def to_json(self) -> dict[str, float]:
        """``memory_mib``, and on a GPU ``gpu_memory_mib``."""
        own = {"memory_mib": round(self.most, 1)}
        return own | ({"gpu_memory_mib": round(self.gpu, 1)} if self.device.type == "cuda" else {})


def _peak_resident() -> float:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
