"""``mrtransfer doctor``: what this machine offers, and what is missing."""

import os
import platform
import re
import shutil
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Annotated, Any

import typer

from mrtransfer import __version__
from mrtransfer.cli.show import print_json, print_table
from mrtransfer.data.threads import cpu_count

GIB = 2**30
LITTLE_MEMORY_GIB = 4
LITTLE_DISK_GIB = 5


def command(
    full: Annotated[bool, typer.Option("--full", help="Also start PyTorch and look for a GPU (some seconds).")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what this machine offers: cores, memory, disk, versions; with --full also the GPU."""
    found: dict[str, Any] = {"machine": machine(), "packages": packages()}
    if full:
        found["torch"] = torch_sees()
    found["problems"] = problems(found)
    if json:
        print_json(found)
    else:
        for title in ("machine", "packages", "torch"):
            if title in found:
                print_table(title, {_plain(name): _plain(value) for name, value in found[title].items()})
        print_table("problems", {f"{n}.": sentence for n, sentence in enumerate(found["problems"], start=1)})
    if found["problems"]:
        raise typer.Exit(1)


def machine() -> dict[str, Any]:
    """Python, platform, cores, memory and free disk of the working folder (GiB)."""
    return {
        "mrtransfer": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": cpu_count(),
        "memory_gib": memory_gib(),
        "disk_free_gib": round(shutil.disk_usage(Path.cwd()).free / GIB, 1),
    }


def memory_gib() -> float | None:
    """Memory of the machine, or of the container where that is less; None where the system does not say."""
    limits = []
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        limits.append(int(text))
    return round(min(limits) / GIB, 1) if limits else None


def packages() -> dict[str, str | None]:
    """Version of every dependency, None where it is missing; nothing is imported."""
    found: dict[str, str | None] = {}
    for requirement in requires("mrtransfer") or []:
        if "extra ==" in requirement:
            continue
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return dict(sorted(found.items()))


def torch_sees() -> dict[str, Any]:
    """Devices and thread count, by asking PyTorch itself."""
    import torch

    gpus = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    return {
        "gpu": ", ".join(gpus) or "none",
        "apple_gpu": torch.backends.mps.is_available(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def problems(found: dict[str, Any]) -> list[str]:
    """Sentences about what will get in the way."""
    said = [
        f"package {name} is missing: python -m pip install {name}" for name, v in found["packages"].items() if v is None
    ]
    memory, disk = found["machine"]["memory_gib"], found["machine"]["disk_free_gib"]
    if memory is not None and memory < LITTLE_MEMORY_GIB:
        said.append(f"only {memory} GiB of memory: prefer small networks and input.size")
    if disk < LITTLE_DISK_GIB:
        said.append(f"only {disk} GiB free on this disk: image stores and runs of larger studies need more")
    return said


def _plain(value: Any) -> str:
    """A key or value as people read it."""
    return "missing" if value is None else str(value).replace("_gib", " (GiB)").replace("_free", " free")
