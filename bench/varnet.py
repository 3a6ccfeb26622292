"""(g) The end-to-end VarNet: a training step of ours against MONAI's and fastMRI's, and the memory that it takes.

    python -m bench.varnet [--cascades 4 12] [--coils 8] [--size 256] [--repeats 5] [--threads 2] [--tuned] [--quick]

One slice of made-up k-space, 4 times undersampled. A step is forward pass, loss, backward pass and Adam. The sides:

    fastmri       the package's own (left out where it is not installed), float32 as it comes
    monai         as MONAI's tutorial for this network builds it: the same channels, U-Nets of its own, float32
    ours          in the number format that a short measurement picks
    recomputed    ours with checkpoint: true
    float32       ours without bfloat16; float32_recomputed: that with checkpoint: true
    fastmri_bfloat16, monai_bfloat16     with --tuned: under autocast and channels-last, which neither does by itself

All run in turns in one process; the median of each counts. Memory: each side in a process of its own, the peak over two
steps; on a CPU of the whole process, and of what it is above the imports.

Agreement, in float32 and with the weights of ours after some learning: the largest difference from fastMRI's output,
and from that of MONAI's network with our U-Nets and sensitivities in place of its own, relative to the largest value.
Of bfloat16: how much its SSIM with the true image differs from that of float32.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from bench.common import median, seconds
from mrtransfer.models.norm_unet import UNet
from mrtransfer.models.reconstruction import build_reconstruction_network
from mrtransfer.physics.fourier import fft2c
from mrtransfer.physics.masks import Sampling
from mrtransfer.tasks.reconstruction.losses import build_loss
from mrtransfer.tasks.reconstruction.metrics import ssim
from mrtransfer.training.peak import Peak
from mrtransfer.training.precision import FLOAT32, Precision, choose_device, choose_precision, placed

CHANNELS, SENS_CHANNELS, POOLS = 18, 8, 4
BFLOAT16 = Precision("bfloat16", True)
THEIRS = ("fastmri", "monai")
OURS = ("ours", "recomputed", "float32", "float32_recomputed")
TUNED = ("fastmri_bfloat16", "monai_bfloat16")


def main() -> None:
    """Run all sides alternately, then each in a process of its own; print times, memory, ratios and agreement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cascades", type=int, nargs="+", default=[4, 12])
    parser.add_argument("--coils", type=int, default=8)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="of learning, before the outputs are compared")
    parser.add_argument("--threads", type=int, help="by default all that PyTorch would use")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tuned", action="store_true", help="also the others in bfloat16")
    parser.add_argument("--quick", action="store_true", help="2 cascades, 4 coils, 96×96, 2 repeats")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--dtype", default="float32", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.cascades, options.coils, options.size, options.repeats, options.steps = [2], 4, 96, 2, 5
    if options.threads:
        torch.set_num_threads(options.threads)
    options.device = choose_device(options.device)
    if options.side:
        print(json.dumps(memory_of(options)))
        return
    found = [measure(cascades, options) for cascades in options.cascades]
    print(json.dumps({"coils": options.coils, "size": options.size, "device": options.device, "runs": found}, indent=1))


def measure(cascades: int, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds and memory of all sides with so many cascades, the ratios, and how far outputs agree."""
    data = Slice(options.coils, options.size, options.device)
    precision = chosen_precision(cascades, data)
    sides = {name: build(name, cascades) for name in names(options.tuned)}
    times: dict[str, list[float]] = {name: [] for name in sides}
    with ExitStack() as stack:
        steps = {
            name: stack.enter_context(training_step(name, network, data, precision)) for name, network in sides.items()
        }
        for _ in range(2):  # for memory to be had and kernels to be chosen
            for step in steps.values():
                step()
        for _ in range(options.repeats):
            for name, step in steps.items():
                times[name].append(seconds(step))
        for _ in range(options.steps):
            steps["ours"]()
    typical = {name: median(values) for name, values in times.items()}
    peaks = {name: peak_of(name, cascades, precision, options) for name in sides}
    others = [name for name in sides if name not in OURS]
    return {
        "cascades": cascades,
        "parameters": {name: sum(p.numel() for p in network.parameters()) for name, network in sides.items()},
        "precision": precision.name,
        "threads": torch.get_num_threads(),
        "seconds": {name: [round(value, 3) for value in values] for name, values in times.items()},
        "times_faster": {
            other: {name: round(typical[other] / typical[name], 2) for name in OURS} for other in others
        },
        "memory_mib": peaks,
        "share_of_memory": {
            other: {name: {k: round(v / peaks[other][k], 2) for k, v in peaks[name].items()} for name in OURS}
            for other in others
        },
        "agreement": agreement(sides, data, cascades, precision),
    }  # fmt: skip


class Slice:
    """Undersampled k-space of a made-up slice, as each side wants it, and the true image."""

    def __init__(self, coils: int, size: int, device: str) -> None:
        generator = torch.Generator().manual_seed(0)
        rows, columns = torch.meshgrid(*[torch.linspace(-1, 1, size)] * 2, indexing="ij")
        image = torch.zeros(size, size)
        for _ in range(24):  # ellipses within a head
            y, x, high, wide, value = torch.rand(5, generator=generator).tolist()
            inside = ((rows - y + 0.5) / (0.1 + 0.3 * high)) ** 2 + ((columns - x + 0.5) / (0.1 + 0.3 * wide)) ** 2 < 1
            image += inside * (value - 0.3)
        image = (image + 0.6).clamp(0) * ((rows / 0.9) ** 2 + (columns / 0.75) ** 2 < 1)
        angles = torch.arange(coils) * (2 * torch.pi / coils)
        distance = (rows - angles.sin()[:, None, None]) ** 2 + (columns - angles.cos()[:, None, None]) ** 2
        maps = torch.polar(torch.exp(-distance), angles[:, None, None] + rows + 0.5 * columns)
        images = maps * image
        kspace = fft2c(images)
        kspace += 0.01 * torch.randn(kspace.shape, dtype=kspace.dtype, generator=generator)
        sampled = Sampling(mask="random", acceleration=4, centre_fraction=0.08).draw(size, seed=0)
        kept = torch.from_numpy(sampled.columns)
        self.device = device
        self.target = images.abs().square().sum(0).sqrt()[None].to(device)
        self.maximum = self.target.max()[None]
        self.kspace = (kspace * kept)[None].to(torch.complex64).to(device)
        self.columns = kept[None].to(device)
        self.centre = torch.tensor([sampled.centre], device=device)
        self.pairs = torch.view_as_real(self.kspace).contiguous()
        self.mask = self.columns[:, None, None, :, None]

    def on_cpu(self) -> "Slice":
        """The same, where networks are compared."""
        moved = copy(self)
        for key, value in vars(self).items():
            setattr(moved, key, value.cpu() if isinstance(value, Tensor) else value)
        return moved

    def through(self, name: str, network: nn.Module) -> Tensor:
        """The output (1, H, W) of a side's network."""
        if name.startswith("monai"):
            return network(self.pairs, self.mask)
        if name.startswith("fastmri"):
            return network(self.pairs, self.mask, int(self.centre))
        return network(self.kspace, self.columns, self.centre)


def names(tuned: bool) -> list[str]:
    """The sides to be measured; without fastMRI where that is not installed."""
    try:
        import fastmri.models  # noqa: F401
    except ImportError:
        missing = "fastmri"
    else:
        missing = "none"
    return [name for name in (*THEIRS, *OURS, *(TUNED if tuned else ())) if not name.startswith(missing)]


def build(name: str, cascades: int) -> nn.Module:
    """A side's network, all with the same channels and pools."""
    if name.startswith("fastmri"):
        from fastmri.models import VarNet

        return VarNet(cascades, SENS_CHANNELS, POOLS, CHANNELS, POOLS)
    if name.startswith("monai"):
        return monais(cascades)
    options = {"cascades": cascades, "checkpoint": name.endswith("recomputed")}
    return build_reconstruction_network("varnet", options=options)


def monais(cascades: int, unet: Callable[[int], nn.Module] | None = None) -> nn.Module:
    """MONAI's network as in its tutorial, or with another ``unet`` of so many channels in place of its own."""
    from monai.apps.reconstruction.networks.nets.coil_sensitivity_model import CoilSensitivityModel
    from monai.apps.reconstruction.networks.nets.complex_unet import ComplexUnet
    from monai.apps.reconstruction.networks.nets.varnet import VariationalNetworkModel

    def refining(channels: int) -> nn.Module:
        features = (*(channels * 2**level for level in range(POOLS + 1)), channels)
        return ComplexUnet(spatial_dims=2, features=features, conv_net=unet and unet(channels))

    sensitivities = CoilSensitivityModel(spatial_dims=2, conv_net=refining(SENS_CHANNELS))
    return VariationalNetworkModel(sensitivities, refining(CHANNELS), cascades)


@contextmanager
def training_step(name: str, network: nn.Module, data: Slice, precision: Precision) -> Iterator[Callable[[], Tensor]]:
    """A function that does one step of training, and returns the output."""
    used = precision if name in ("ours", "recomputed") else BFLOAT16 if name in TUNED else FLOAT32
    with placed(used, data.device, network):
        loss = build_loss("ssim").to(data.device)
        optimizer = torch.optim.Adam(network.parameters(), 3e-4)

        def step() -> Tensor:
            with used.autocast(data.device):
                out = data.through(name, network)
            optimizer.zero_grad()
            loss(out.float(), data.target, data.maximum).backward()
            optimizer.step()
            if data.device != "cpu":
                torch.cuda.synchronize()
            return out.detach().float().cpu()

        yield step


def chosen_precision(cascades: int, data: Slice) -> Precision:
    """As for any training of this package: the fastest that agrees, each tried on weights of its own."""
    with ExitStack() as stack:

        def make(precision: Precision) -> Callable[[], Tensor]:
            return stack.enter_context(training_step("ours", build("ours", cascades), data, precision))

        return choose_precision(make, "auto", data.device)


def agreement(sides: dict[str, nn.Module], data: Slice, cascades: int, precision: Precision) -> dict[str, float]:
    """How far outputs are apart that should be one, all with the weights that ours has learnt."""
    trained = sides["ours"]
    state = trained.body.state_dict()  # type: ignore[union-attr]
    data = data.on_cpu()
    found: dict[str, float] = {}
    with torch.inference_mode():
        exact = data.through("ours", trained)
        with precision.autocast("cpu"):
            rounded = data.through("ours", trained)
        similar = [float(ssim(out, data.target, float(data.maximum))) for out in (exact, rounded)]
        found["ssim"] = round(similar[0], 5)
        found["ssim_change_in_chosen_precision"] = round(similar[1] - similar[0], 6)
        if "fastmri" in sides:
            sides["fastmri"].load_state_dict(state)
            found["fastmri"] = apart(exact, data.through("fastmri", sides["fastmri"]))
        frame = monais(cascades, lambda channels: UNet(2, 2, channels, POOLS))
        for theirs, own in zip(frame.cascades.parameters(), trained.body.cascades.parameters(), strict=True):
            theirs.copy_(own)
        frame.coil_sensitivity_model = Given(trained.body.sens_net(data.kspace, data.columns, data.centre))
        found["monai"] = apart(exact, data.through("monai", frame))
    return found


class Given(nn.Module):
    """Sensitivities that are known.

    MONAI's own are other ones: it divides their real and imaginary parts each by a root sum of squares of its own.
    """

    def __init__(self, maps: Tensor) -> None:
        super().__init__()
        self.maps = torch.view_as_real(maps)

    def forward(self, *_: Tensor) -> Tensor:
        return self.maps


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float(f"{float((one - other).abs().max() / other.abs().max()):.2e}")


def peak_of(name: str, cascades: int, precision: Precision, options: argparse.Namespace) -> dict[str, float]:
    """Peak memory of a side in a process of its own, MiB."""
    words = {
        "--side": name, "--cascades": cascades, "--coils": options.coils, "--size": options.size,
        "--device": options.device, "--threads": torch.get_num_threads(), "--dtype": precision.dtype,
    }  # fmt: skip
    command = [sys.executable, "-m", "bench.varnet", *(str(word) for pair in words.items() for word in pair)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def memory_of(options: argparse.Namespace) -> dict[str, float]:
    """The child's part: the peak over two steps, all of it and what it is above everything imported."""
    data = Slice(options.coils, options.size, options.device)
    precision = BFLOAT16 if options.dtype == "bfloat16" else FLOAT32
    build(options.side, 1)
    before, peak = Peak(options.device), Peak(options.device)
    before.begin()
    before.end()
    peak.begin()
    network = build(options.side, options.cascades[0])
    with training_step(options.side, network, data, precision) as step:
        for _ in range(2):
            step()
    peak.end()
    found = peak.to_json()
    return {**found, "above_imports_mib": round(found["memory_mib"] - before.most, 1)}


if __name__ == "__main__":
    main()
