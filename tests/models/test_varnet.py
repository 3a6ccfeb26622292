"""The end-to-end variational network: fastMRI's, from its files, and equal to the equations in k-space."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mrtransfer.common.errors import UserError
from mrtransfer.models.load import load_into
from mrtransfer.models.reconstruction import build_reconstruction_network
from mrtransfer.models.weights import apply_weights
from mrtransfer.physics.fourier import fft2c, ifft2c
from mrtransfer.physics.masks import centre_columns

SMALL = {"cascades": 3, "channels": 4, "pools": 2, "sens_channels": 3, "sens_pools": 2}


def build(seed=0, **options):
    network = build_reconstruction_network("varnet", options={**SMALL, **options}, seed=seed)
    with torch.no_grad():  # as if it had been trained: with all weights at 1, some terms cancel
        for number, cascade in enumerate(network.body.cascades):
            cascade.dc_weight.fill_(0.6 + 0.3 * number)
    return network


def measured(coils=3, matrix=(24, 20), batch=1, seed=0, dtype=torch.complex64):
    """Undersampled k-space with most energy in the middle, the columns, and how many central ones there are."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (torch.linspace(-1, 1, size) for size in matrix)
    energy = torch.exp(-6 * (rows[:, None] ** 2 + columns**2))
    kspace = energy * torch.randn(batch, coils, *matrix, dtype=dtype, generator=generator)
    kept = torch.zeros(batch, matrix[1], dtype=torch.bool)
    number = 6
    first = (matrix[1] - number + 1) // 2
    for item, offset in zip(kept, range(batch), strict=True):
        item[offset % 3 :: 4] = True
        item[first : first + number] = True
    return kspace * kept[:, None, None, :], kept, torch.full((batch,), number)


def in_kspace(body, kspace, columns, centre):
    """Sriram et al. 2020 as it is written: k-space of all coils after every step."""
    mask = columns[:, None, None, :]
    maps = body.sens_net(kspace, columns, centre)
    current = kspace
    for cascade in body.cascades:
        image = (maps.conj() * ifft2c(current)).sum(1)
        refined = fft2c(maps * cascade.model(image)[:, None])
        current = current - cascade.dc_weight * mask * (current - kspace) - refined
    return ifft2c(current).abs().square().sum(1).sqrt()


def gradients(network):
    return torch.cat([parameter.grad.flatten() for parameter in network.parameters()])


@pytest.mark.parametrize("cascades", [1, 2, 4])
@pytest.mark.parametrize("matrix", [(24, 20), (17, 25)])
def test_the_steps_are_those_in_kspace(cascades, matrix):
    network = build(cascades=cascades).double()
    kspace, columns, centre = measured(matrix=matrix, batch=2, dtype=torch.complex128)
    expected = in_kspace(network.body, kspace, columns, centre)
    expected.square().mean().backward()
    expected_gradients = gradients(network)
    network.zero_grad()
    found = network(kspace, columns, centre)
    found.square().mean().backward()
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradients(network), expected_gradients, rtol=1e-8, atol=1e-12)


def test_twelve_cascades_have_the_parameters_of_the_published_network():
    network = build_reconstruction_network("varnet")
    assert sum(parameter.numel() for parameter in network.parameters()) == 29_936_966
    assert network.stage_names == ["sens_net", *(f"cascades.{number}" for number in range(12))]


def fastmris(fastmri_models, **options):
    """fastMRI's network with the same options, and trained weights of data consistency."""
    chosen = {**SMALL, **options}
    torch.manual_seed(5)
    network = fastmri_models.VarNet(
        chosen["cascades"], chosen["sens_channels"], chosen["sens_pools"], chosen["channels"], chosen["pools"],
        chosen.get("mask_centre", True),
    )  # fmt: skip
    with torch.no_grad():
        for number, cascade in enumerate(network.cascades):
            cascade.dc_weight.fill_(1.2 - 0.3 * number)
    return network.eval()


@pytest.fixture(scope="module")
def fastmri_models():
    with warnings.catch_warnings(action="ignore"):
        pytest.importorskip("fastmri")
        return pytest.importorskip("fastmri.models")


WRAPPED = {
    "plain": lambda state: state,
    "prefix": lambda state: {f"varnet.{name}": value for name, value in state.items()},
    "lightning": lambda state: {
        "epoch": 49,
        "state_dict": {**{f"varnet.{name}": value for name, value in state.items()}, "loss.w": torch.ones(1, 1, 7, 7)},
        "hyper_parameters": {"num_cascades": 3},
    },
}


@pytest.mark.parametrize("wrapped", WRAPPED)
@pytest.mark.parametrize(
    ("options", "matrix", "coils"),
    [
        ({}, (32, 32), 4),
        ({"pools": 4, "sens_pools": 4, "cascades": 4}, (64, 48), 2),
        ({"mask_centre": False, "sens_pools": 3}, (39, 50), 3),
    ],
)
def test_a_file_of_fastmri_gives_fastmris_output(tmp_path, fastmri_models, wrapped, options, matrix, coils):
    theirs = fastmris(fastmri_models, **options)
    torch.save(WRAPPED[wrapped](theirs.state_dict()), tmp_path / "varnet.pt")
    ours = build_reconstruction_network("varnet", options={**SMALL, **options}, seed=1)
    report = apply_weights(ours, str(tmp_path / "varnet.pt"))
    own = set(ours.body.state_dict())
    assert {row.name for row in report.rows if row.status == "loaded"} == own
    kspace, columns, centre = measured(coils, matrix, batch=2)
    with torch.inference_mode():
        pairs = torch.view_as_real(kspace)
        for known in (centre, None):
            number = None if known is None else int(known[0])
            expected = theirs(pairs, columns[:, None, None, :, None], number)
            found = ours.eval()(kspace, columns, known)
            assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_the_same_seed_draws_the_weights_that_fastmri_would(fastmri_models):
    torch.manual_seed(7)
    theirs = fastmri_models.VarNet(3, 3, 2, 4, 2).state_dict()
    ours = build_reconstruction_network("varnet", options=SMALL, seed=7).body.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_weights_go_up_to_a_cascade(tmp_path):
    """As transfer does it: the first cascades of another network, the rest fresh."""
    donor, network = build(seed=3), build(seed=4)
    fresh = network.body.cascades[2].model.unet.conv.layers["0"].weight.clone()
    torch.save({f"module.{name}": value for name, value in donor.body.state_dict().items()}, tmp_path / "w.pt")
    apply_weights(network, {"file": str(tmp_path / "w.pt"), "until": "cascades.1"})
    for name in ("sens_net", "cascades.0", "cascades.1"):
        pairs = zip(network.stage_parameters(name), donor.stage_parameters(name), strict=True)
        assert all(torch.equal(own, given) for (_, own), (_, given) in pairs)
    assert torch.equal(network.body.cascades[2].model.unet.conv.layers["0"].weight, fresh)


def test_a_file_with_more_cascades_is_refused():
    with pytest.raises(UserError, match=r"cascades\.2"):
        load_into(build(cascades=2), build(cascades=3).body.state_dict())


def test_there_are_no_imagenet_weights():
    with pytest.raises(UserError, match="there are none for varnet"):
        apply_weights(build(), "imagenet")


def test_recomputing_changes_nothing_but_memory():
    kspace, columns, centre = measured(batch=2)
    keeping, recomputing = build(), build(checkpoint=True)
    outputs = []
    for network in (keeping, recomputing):
        outputs.append(network(kspace, columns, centre))
        outputs[-1].square().mean().backward()
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(gradients(recomputing), gradients(keeping), rtol=1e-3, atol=1e-6)


def kept_bytes(network, *inputs):
    """Of all tensors that the forward pass leaves for the backward pass."""
    found = {}

    def note(tensor):
        found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out = network(*inputs)
    return sum(found.values()), out


def test_further_cascades_keep_single_images_only_where_they_are_recomputed():
    inputs = measured(coils=6, matrix=(64, 64))
    few, many = (kept_bytes(build(cascades=n, checkpoint=True), *inputs)[0] for n in (3, 7))
    image = 64 * 64 * 8
    parameters = sum(p.numel() for p in build().body.cascades[0].parameters()) * 4
    assert many - few < 4 * (12 * image + parameters)


def test_every_parameter_has_a_gradient_whatever_is_frozen():
    """Otherwise several processes would wait for one another's."""
    kspace, columns, centre = measured()
    network = build()
    network(kspace, columns, centre).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    frozen = build()
    for _, parameter in (*frozen.stage_parameters("sens_net"), *frozen.stage_parameters("cascades.1")):
        parameter.requires_grad_(False)
    frozen(kspace, columns, centre).sum().backward()
    for name in ("cascades.0", "cascades.2"):
        for (_, own), (_, reference) in zip(frozen.stage_parameters(name), network.stage_parameters(name), strict=True):
            torch.testing.assert_close(own.grad, reference.grad, rtol=1e-4, atol=1e-6)


def test_stages_hold_every_parameter_once():
    network = build()
    held = [name for stage in network.stage_names for name, _ in network.stage_parameters(stage)]
    assert sorted(held) == sorted(name for name, _ in network.body.named_parameters())


def test_images_of_a_batch_do_not_see_each_other():
    network = build().double().eval()
    kspace, columns, centre = measured(batch=3, dtype=torch.complex128)
    with torch.inference_mode():
        together = network(kspace, columns, centre)
        for item in range(3):
            alone = network(kspace[[item]], columns[[item]], centre[[item]])
            torch.testing.assert_close(together[[item]], alone)


@given(scale=st.floats(1e-6, 1e6), seed=st.integers(0, 3))
@settings(max_examples=12, deadline=None)
def test_units_of_kspace_do_not_matter(scale, seed):
    network = build().double().eval()
    kspace, columns, centre = measured(seed=seed, dtype=torch.complex128)
    with torch.inference_mode():
        expected = scale * network(kspace, columns, centre)
        torch.testing.assert_close(network(scale * kspace, columns, centre), expected, rtol=1e-5, atol=0)


def test_an_empty_slice_stays_empty_and_trains_on():
    network = build()
    kspace, columns, centre = measured(batch=2)
    kspace[1] = 0
    out = network(kspace, columns, centre)
    assert torch.equal(out[1], torch.zeros_like(out[1]))
    (out - 1).abs().mean().backward()
    assert torch.isfinite(gradients(network)).all()


class Fixed(nn.Module):
    """In place of a network: always the same answer, or a share of the question."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x, *_):
        return self.answer if isinstance(self.answer, torch.Tensor) else self.answer * x


def test_bfloat16_is_for_the_unets_alone():
    """With linear functions in their place, not one bit changes."""
    network = build()
    kspace, columns, centre = measured()
    with torch.no_grad():
        network.body.sens_net = Fixed(network.body.sens_net(kspace, columns, centre))
        for cascade in network.body.cascades:
            cascade.model = Fixed(0.3)
        expected = network(kspace, columns, centre)
        with torch.autocast("cpu", torch.bfloat16):
            found = network(kspace, columns, centre)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_bfloat16_agrees_with_float32():
    kspace, columns, centre = measured(coils=4, matrix=(48, 48))
    network = build(channels=8)
    outputs = []
    for enabled in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            outputs.append(network(kspace, columns, centre))
        outputs[-1].mean().backward()
        assert torch.isfinite(gradients(network)).all()
    exact, rounded = outputs
    assert (rounded - exact).norm() < 0.03 * exact.norm()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("0010111101", "0000110000"),
        ("0001111000", "0001111000"),
        ("0000011100", "0000010000"),
        ("000000000", "000010000"),
        ("001111100", "000111100"),
    ],
)
def test_the_centre_is_found_in_the_columns(pattern, expected):
    """fastMRI's rule, by hand: as many to the left of W // 2 as from there on, the shorter of the two runs."""
    columns = torch.tensor([[sign == "1" for sign in pattern]])
    found = "".join(str(int(value)) for value in centre_columns(columns, None)[0])
    assert found == expected


def test_a_known_centre_is_taken():
    columns = torch.ones(3, 9, dtype=torch.bool)
    found = centre_columns(columns, torch.tensor([3, 4, 0]))
    assert ["".join(str(int(v)) for v in row) for row in found] == ["000111000", "000111100", "011111111"]
