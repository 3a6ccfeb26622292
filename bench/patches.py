"""(d) Training patches: our store against MONAI's PersistentDataset and CacheDataset, samples a second and memory.

    python -m bench.patches [--path BRATS_FOLDER] [--cases 8] [--seconds 6] [--threads 1] [--tuned]

All sides cut patches of the same size from the same files, two channels of 240 × 240 × 155 voxels, in one process
without workers: MONAI with LoadImaged, Orientationd, Spacingd, NormalizeIntensityd (CropForegroundd, where our plan
crops), masks kept as uint8, and RandCropByPosNegLabeld, one patch a case as ours. With ``--tuned``, MONAI keeps where
foreground and background are (FgBgToIndicesd) and CacheDataset does not copy: as fast as it gets, and not what its
tutorials do. Each side runs in a process of its own, with everything that can be prepared on disk prepared. Memory is
the largest resident size, all of it and what it is above that after the imports. Agreement: what CacheDataset holds
against what our store holds.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from mrtransfer.data.cases.fingerprint import fingerprint
from mrtransfer.data.cases.patches import PatchSampler
from mrtransfer.data.cases.plan import SegmentationPlan, make_plan
from mrtransfer.data.cases.store import CaseStore, open_cases
from mrtransfer.data.datasets import DATASETS
from mrtransfer.data.manifest import Manifest

CHANNELS = ("flair", "t1ce")
SUBJECTS = 2  # rendered; the other cases are copies
SIDES = ("ours", "persistent", "cache")


def main() -> None:
    """Prepare, run every side in a process of its own, print what each needed and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", help="cases in BraTS' layout; by default the phantom in it")
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tuned", action="store_true")
    parser.add_argument("--side", choices=("prepare", *SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        torch.set_num_threads(options.threads)
        print(json.dumps(one_side(options)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(measure(options, Path(scratch)), indent=1))


def measure(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """What every side needed, and the ratios."""
    if options.path is None:
        options.path = str(phantom_cases(scratch / "cases", options.cases))

    def run(side: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "bench.patches", "--side", side, "--scratch", str(scratch)]
        for name in ("path", "cases", "seconds", "threads"):
            command += [f"--{name}", str(getattr(options, name))]
        command += ["--tuned"] if options.tuned else []
        return json.loads(
            subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
        )

    prepared = run("prepare")
    found = {side: run(side) for side in SIDES}
    ours = found["ours"]
    return {
        **prepared,
        **found,
        "samples_per_s_over_persistent": round(ours["samples_per_s"] / found["persistent"]["samples_per_s"], 1),
        "samples_per_s_over_cache": round(ours["samples_per_s"] / found["cache"]["samples_per_s"], 1),
        "memory_of_cache": round(ours["data_mib"] / found["cache"]["data_mib"], 3),
        "memory_of_cache_with_imports": round(ours["peak_mib"] / found["cache"]["peak_mib"], 3),
    }


def phantom_cases(root: Path, cases: int) -> Path:
    """Phantom volumes of BraTS' size, in its layout."""
    for index in range(cases):
        folder = root / f"BraTS2021_{index:05}"
        folder.mkdir(parents=True)
        for name in (*CHANNELS, "seg"):
            file = folder / f"{folder.name}_{name}.nii.gz"
            if index >= SUBJECTS:
                first = root / f"BraTS2021_{index % SUBJECTS:05}"
                shutil.copy(first / f"{first.name}_{name}.nii.gz", file)
                continue
            data, affine = rendered(index, "mask" if name == "seg" else name)
            nib.openers.Opener.default_compresslevel = 1
            nib.save(nib.Nifti1Image(data, affine), file)
    return root


def rendered(subject: int, contrast: str) -> tuple[np.ndarray, np.ndarray]:
    """A head with a glioma; its enhancing tumour is 4, as in BraTS up to 2021."""
    from mrtransfer.data.phantom.volume import render_volume

    scan = f"phantom:volume=1&subject={subject}&lesion=glioma&contrast={contrast}&size=240x240x155&spacing=1x1x1"
    data, affine = render_volume(scan)
    return np.where(data == 3, 4, data).astype(np.uint8) if contrast == "mask" else data, affine


def one_side(options: argparse.Namespace) -> dict[str, Any]:
    """What is measured in a process of its own."""
    manifest = DATASETS.get("brats")(options.path, channels=CHANNELS)
    manifest = manifest.take(range(min(options.cases, len(manifest))))
    if options.side == "prepare":
        return prepare(manifest, options)
    plan = SegmentationPlan.load(options.scratch / "plan.json")
    if options.side == "ours":
        after_imports = resident("VmRSS")
        started = time.perf_counter()
        store = open_cases(manifest, plan, options.scratch / "ours")
        ready = time.perf_counter() - started
        return sampled(lambda: ours(store, plan), plan, options.seconds, ready, after_imports)
    import monai.data
    import monai.transforms  # noqa: F401 - part of the imports

    after_imports = resident("VmRSS")
    started = time.perf_counter()
    data = monai_data(options.side, manifest, plan, options)
    ready = time.perf_counter() - started
    found = sampled(lambda: theirs(data, plan), plan, options.seconds, ready, after_imports)
    if options.side == "cache":
        found |= differences(data, open_cases(manifest, plan, options.scratch / "ours"))
    return found


def prepare(manifest: Manifest, options: argparse.Namespace) -> dict[str, Any]:
    """Build our store and MONAI's persistent files, so that no side is timed while it does."""
    scratch, started = options.scratch, time.perf_counter()
    plan = make_plan(fingerprint(manifest, np.arange(len(manifest)), cache=scratch))
    plan.save(scratch / "plan.json")
    open_cases(manifest, plan, scratch / "ours")
    ours_s = time.perf_counter() - started
    import monai.data  # noqa: F401 - not timed

    started = time.perf_counter()
    for _ in (data := monai_data("persistent", manifest, plan, options)):
        pass
    return {
        "cases": len(data),
        "patch": list(plan.patch),
        "batch": plan.batch,
        "crop": plan.crop,
        "ours_prepare_s": round(ours_s, 1),
        "persistent_prepare_s": round(time.perf_counter() - started, 1),
        "ours_disk_mib": mebibytes(scratch / "ours"),
        "persistent_disk_mib": mebibytes(scratch / "persistent"),
    }


def ours(store: CaseStore, plan: SegmentationPlan) -> Iterator[int]:
    """Sizes of our batches."""
    sampler = PatchSampler(
        store, np.arange(len(store)), patch=plan.patch, batch=plan.batch, foreground=plan.foreground, seed=0
    )
    epoch = 0
    while True:
        for step in range(sampler.steps):
            batch = sampler.batch(epoch, step)
            yield len(batch["images"].float())
        epoch += 1


def theirs(data: Any, plan: SegmentationPlan) -> Iterator[int]:
    """Sizes of MONAI's batches."""
    from monai.data import DataLoader

    while True:
        for batch in DataLoader(data, batch_size=plan.batch, shuffle=True, num_workers=0):
            yield len(batch["image"])


def monai_data(side: str, manifest: Manifest, plan: SegmentationPlan, options: argparse.Namespace) -> Any:
    """A MONAI data set with transforms equivalent to ``plan``."""
    import monai.data as md
    import monai.transforms as mt

    both = ("image", "mask")
    nonzero = plan.normalise[0] == "zscore_nonzero"
    steps = [
        mt.LoadImaged(both, image_only=True, ensure_channel_first=True),
        mt.Orientationd(both, axcodes="RAS", labels=None),
        mt.Spacingd(both, pixdim=plan.spacing, mode=("bilinear", "nearest")),
        mt.CastToTyped("mask", np.uint8),
        *([mt.CropForegroundd(both, source_key="image", allow_smaller=True)] if plan.crop == "nonzero" else []),
        mt.NormalizeIntensityd("image", nonzero=nonzero, channel_wise=True),
        *([mt.FgBgToIndicesd("mask")] if options.tuned else []),
        mt.RandCropByPosNegLabeld(
            both,
            label_key="mask",
            spatial_size=plan.patch,
            pos=plan.foreground,
            neg=1 - plan.foreground,
            num_samples=1,
            fg_indices_key="mask_fg_indices" if options.tuned else None,
            bg_indices_key="mask_bg_indices" if options.tuned else None,
        ),
    ]
    root, masks = manifest.root, manifest.table["mask"]
    files = [
        {"image": [str(root / file) for file in manifest.locations(row)], "mask": str(root / masks.iloc[row])}
        for row in range(len(manifest))
    ]
    if side == "cache":
        return md.CacheDataset(files, mt.Compose(steps), num_workers=1, copy_cache=not options.tuned, progress=False)
    return md.PersistentDataset(files, mt.Compose(steps), cache_dir=options.scratch / "persistent")


def sampled(
    batches: Callable[[], Iterator[int]], plan: SegmentationPlan, seconds: float, ready: float, after_imports: float
) -> dict[str, Any]:
    """Patches a second, in the last two thirds of the given time, and the memory that this process took so far."""
    count, started = 0, time.perf_counter()
    first = now = (0.0, time.process_time())
    for size in batches():
        now = (time.perf_counter() - started, time.process_time())
        if now[0] < seconds / 3:
            first = now
            continue
        count += size
        if now[0] > seconds:
            break
    peak = resident("VmHWM")
    return {
        "samples_per_s": round(count / (now[0] - first[0]), 2),
        "samples_per_cpu_s": round(count / (now[1] - first[1]), 2),
        "ready_s": round(ready, 2),
        "peak_mib": round(peak),
        "imports_mib": round(after_imports),
        "data_mib": round(peak - after_imports),
    }


def differences(data: Any, store: CaseStore) -> dict[str, Any]:
    """The largest difference of images, and the voxels whose class differs, over all cases as both sides hold them."""
    worst, classes = 0.0, 0
    values = {0: 0, 1: 1, 2: 2, 4: 3}
    for row in range(len(store)):
        item = data._cache[row]
        image, mask = np.asarray(item["image"]), np.asarray(item["mask"])[0]
        own = store.image(row).astype(np.float32)
        worst = max(worst, float(np.abs(own - image).max() / max(1, np.abs(image).max())))
        known = np.zeros(256, np.uint8)
        known[list(values)] = list(values.values())
        classes += int((known[mask] != store.mask(row)).sum())
        store.release()
    return {"largest_difference": round(worst, 5), "voxels_of_another_class": classes}


def resident(which: str) -> float:
    """MiB of this process in memory: now (``VmRSS``) or at most so far (``VmHWM``)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(which):
            return int(line.split()[1]) / 1024
    raise RuntimeError("this benchmark reads /proc/self/status, which only Linux has")


def mebibytes(folder: Path) -> int:
    """Size of all files."""
    return round(sum(file.stat().st_size for file in folder.glob("**/*") if file.is_file()) / 2**20)


if __name__ == "__main__":
    main()
