"""Every registered reconstruction keeps the contract: k-space in, magnitudes out, options checked."""

import json
import warnings

import pytest
import torch

from mrtransfer.common.errors import UserError
from mrtransfer.models.network import seeded
from mrtransfer.models.reconstruction import build_reconstruction_network, check_options
from mrtransfer.models.reconstructors import RECONSTRUCTORS
from mrtransfer.models.weights import apply_weights
from mrtransfer.physics.coils import rss
from mrtransfer.physics.fourier import fft2c, ifft2c

NAMES = RECONSTRUCTORS.names()
SMALL = {
    "varnet": {"cascades": 2, "channels": 3, "pools": 2, "sens_channels": 2, "sens_pools": 2},
    "unet": {"channels": 4, "pools": 2},
    "sense": {"iterations": 4},
    "l1_wavelet": {"iterations": 4},
}
CENTRE = 12


def build(name, seed=0, **options):
    return build_reconstruction_network(name, options={**SMALL.get(name, {}), **options}, seed=seed)


def disc(batch=2, coils=4, matrix=(36, 44)):
    """K-space of a disc that coils at the corners see, every other column and the central ones."""
    rows, columns = torch.meshgrid(*(torch.linspace(-1, 1, size) for size in matrix), indexing="ij")
    image = ((rows**2 + columns**2) < 0.7).float() * (1 + 0.3 * columns)
    places = [(-1, -1), (-1, 1), (1, -1), (1, 1)][:coils]
    maps = torch.stack([torch.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 3 + 1j * x * rows) for y, x in places])
    kspace = fft2c(maps * image).to(torch.complex64).repeat(batch, 1, 1, 1)
    kept = torch.zeros(batch, matrix[1], dtype=torch.bool)
    kept[:, ::2] = True
    kept[:, (matrix[1] - CENTRE + 1) // 2 :][:, :CENTRE] = True
    return kspace * kept[:, None, None, :], kept, torch.full((batch,), CENTRE)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("known", [True, False])
def test_kspace_becomes_magnitudes(name, known):
    network = build(name).eval()
    kspace, columns, centre = disc()
    before = kspace.clone()
    with torch.inference_mode():
        found = network(kspace, columns, centre if known else None)
    assert (found.shape, found.dtype) == ((2, 36, 44), torch.float32)
    assert torch.isfinite(found).all()
    assert torch.equal(kspace, before)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_built_again_from_its_description(name):
    network = build(name, seed=3)
    said = json.loads(json.dumps(network.description))
    again = build_reconstruction_network(said["name"], options=said["options"], seed=3)
    assert again.description == network.description
    assert all(
        torch.equal(own, other)
        for own, other in zip(network.state_dict().values(), again.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("name", NAMES)
def test_stages_hold_every_parameter_once_and_classical_ones_have_none(name):
    network = build(name)
    held = [parameter for stage in network.stage_names for parameter, _ in network.stage_parameters(stage)]
    assert sorted(held) == sorted(parameter for parameter, _ in network.body.named_parameters())
    assert network.learns == bool(held) == (name in ("varnet", "unet"))


@pytest.mark.parametrize("name", ["varnet", "unet"])
def test_weights_are_those_of_the_seed(name):
    first, same, other = build(name, seed=1), build(name, seed=1), build(name, seed=2)
    key = next(iter(first.state_dict()))
    assert torch.equal(first.state_dict()[key], same.state_dict()[key])
    assert not torch.equal(first.state_dict()[key], other.state_dict()[key])


def test_what_is_not_known_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="varnet"):
        build_reconstruction_network("vernet")
    with pytest.raises(UserError, match="did you mean 'cascades'"):
        build_reconstruction_network("varnet", options={"cascade": 3})
    with pytest.raises(UserError, match=r"network varnet: cascades: .*0"):
        build_reconstruction_network("varnet", options={"cascades": 0})
    assert check_options("varnet", {"cascades": 4})["sens_channels"] == 8


def test_kspace_that_does_not_fit_is_refused():
    build("varnet").check(2, (8, 8))
    with pytest.raises(UserError, match="needs several coils"):
        build("varnet").check(1, (64, 64))
    with pytest.raises(UserError, match="16×64 is too small; it needs at least 17×17"):
        build("varnet", pools=4).check(8, (16, 64))
    build("unet").check(1, (8, 8))
    with pytest.raises(UserError, match="needs at least 8×8"):
        build("unet").check(1, (8, 7))


def plain_unet(state, network_input):
    """fastMRI's U-Net itself, where the package is there."""
    with warnings.catch_warnings(action="ignore"):
        pytest.importorskip("fastmri")
        models = pytest.importorskip("fastmri.models")
    theirs = models.Unet(1, 1, 4, 2)
    theirs.load_state_dict(state)
    return theirs(network_input)


@pytest.mark.parametrize("prefix", ["", "unet."])
def test_the_unet_takes_a_file_of_fastmri(tmp_path, prefix):
    with seeded(9):
        donor = build("unet", seed=9)
    state = donor.body.state_dict()
    torch.save({"state_dict": {f"{prefix}{name}": value for name, value in state.items()}}, tmp_path / "unet.pt")
    network = build("unet", seed=1).eval()
    apply_weights(network, str(tmp_path / "unet.pt"))
    kspace, columns, centre = disc()
    image = rss(ifft2c(kspace))
    mean, deviation = image.mean((1, 2), keepdim=True), image.std((1, 2), keepdim=True)
    with torch.inference_mode():
        expected = plain_unet(state, ((image - mean) / deviation).clamp(-6, 6)[:, None])[:, 0] * deviation + mean
        found = network(kspace, columns, centre)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_an_empty_slice_stays_empty_in_the_unet():
    network = build("unet")
    kspace, columns, _ = disc()
    kspace[0] = 0
    out = network(kspace, columns)
    assert torch.equal(out[0], torch.zeros_like(out[0]))
    out.mean().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())
