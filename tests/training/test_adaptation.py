"""Adaptation: what the target's images change, what its labels cannot, and that it ends the same if interrupted."""

from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from states import KilledError, kill_after, same, state_of

from mrtransfer.augment.image import Augment
from mrtransfer.augment.prepare import to_input
from mrtransfer.augment.volume import VolumeAugment
from mrtransfer.common.errors import UserError
from mrtransfer.data.cases.fingerprint import fingerprint
from mrtransfer.data.cases.plan import make_plan
from mrtransfer.data.cases.store import CaseStore, open_cases
from mrtransfer.data.datasets import DATASETS
from mrtransfer.models.network import build_network
from mrtransfer.models.segmentation import build_segmentation_network, pixel_head
from mrtransfer.tasks.classification.heads import build_head
from mrtransfer.tasks.segmentation.outputs import outputs
from mrtransfer.training.fit import predict, train
from mrtransfer.training.fit_segmentation import train_segmenter
from mrtransfer.training.precision import Precision
from mrtransfer.training.unlabelled import ImageHalves, Unlabelled
from mrtransfer.transfer.freeze import normalisation_layers
from mrtransfer.transfer.method import parse_method

INPUT = {"normalise": "half", "channels": 1}
LEARNING = ["dann", "dan", "deep_coral", "mcc"]
NOBODY = np.zeros(0, dtype=np.int64)


def scans(seed, count=16, tone=lambda images, place: images, size=32):
    """Discs, rings and crosses; ``tone`` makes another domain of them."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    y, x = np.mgrid[:size, :size]
    images = np.zeros((count, 1, size, size))
    for image, label in zip(images[:, 0], labels, strict=True):
        row, column, radius = *rng.uniform(12, 20, 2), rng.uniform(6, 8)
        far = np.hypot(y - row, x - column)
        bars = [(abs(y - row) < 1.6) & (abs(x - column) < radius), (abs(x - column) < 1.6) & (abs(y - row) < radius)]
        shape = [far < radius, (far < radius) & (far > radius - 3), bars[0] | bars[1]][label]
        image[:] = 0.15 + 0.5 * shape * rng.uniform(0.7, 1) + 0.05 * rng.standard_normal((size, size))
    images = tone(images, np.hypot(y - size / 2, x - size / 2) / (size / 2))
    pixels = (images.clip(0, 1) * 255).astype(np.uint8)
    return SimpleNamespace(images=pixels, row_digests=np.array([str(image.sum()) for image in pixels])), labels


def brighter_outside(images, place):
    return images * 0.8 + 0.3 * (place - 0.3).clip(0, 1)


def model(head="linear"):
    network = build_network("cbr_tiny", in_channels=1)
    return network, build_head(head, network.features, 3)


def run(settings, *, modules=None, source=None, target=None, rows=None, **options):
    """Train on the source; adapt where the method is an adaptation."""
    method = parse_method({"epochs": 2, "batch": 6, **settings})
    modules = modules or model(method.head)
    store, labels = source or scans(0)
    rows = np.arange(16) if rows is None else rows
    adapt = None if method.labels else Unlabelled(target or scans(1, tone=brighter_outside)[0], rows)
    validation = options.pop("validation", NOBODY)
    return modules, train(
        *modules, method, store, labels, np.arange(12), validation, input=INPUT, adapt=adapt, **options
    )


def parameters_of(*modules):
    return [value.detach().clone() for module in modules for value in module.parameters()]


@pytest.mark.parametrize("name", LEARNING)
def test_with_weight_0_the_weights_are_those_of_plain_training_on_the_source(name):
    settings = {"rate": 1e-3, "head": "mlp"}  # with dropout, whose draws the target's half must not disturb
    options = {"augment": Augment(hflip=0.5, rotate=10), "seed": 3}
    plain, expected = run({"name": "scratch", "select": "last", **settings}, **options)
    adapted, result = run({"name": name, "weight": 0, **settings}, **options)
    assert same(parameters_of(*plain), parameters_of(*adapted))
    assert [row["train_loss"] for row in result.curves] == [row["train_loss"] for row in expected.curves]
    other, _ = run({"name": name, **settings}, **options)
    assert not same(parameters_of(*plain), parameters_of(*other))


@pytest.mark.parametrize("name", LEARNING)
def test_the_target_is_learned_from_and_every_epoch_has_its_row(name):
    one, result = run({"name": name}, validation=np.arange(12, 16))
    two, _ = run({"name": name}, target=scans(2)[0])
    assert not same(parameters_of(*one), parameters_of(*two))
    assert [row["epoch"] for row in result.curves] == [0, 1, 2]
    assert result.curves[0]["train_penalty"] is None
    assert np.isfinite([row["train_penalty"] for row in result.curves[1:]]).all()
    assert result.best_epoch == 2


@pytest.mark.parametrize(("select", "killed_at"), [("last", [4]), ("best", [3, 2])])
def test_a_killed_adaptation_goes_on_and_ends_with_the_same_bytes(tmp_path, select, killed_at):
    settings = {"name": "dann", "epochs": 3, "head": "mlp", "rate": 1e-3, "select": select}
    options = {"augment": Augment(hflip=0.5), "seed": 7, "validation": np.arange(12, 16)}
    whole, expected = run(settings, **options)
    options |= {"folder": tmp_path, "checkpoint_seconds": 0}
    for steps in killed_at:
        with pytest.raises(KilledError):
            run(settings, **options, advance=kill_after(steps))
    resumed, result = run(settings, **options)
    assert result.resumed_at > 0
    assert same(state_of(*whole), state_of(*resumed))
    assert result.curves == expected.curves


def test_the_checkpoint_of_an_adaptation_to_other_images_is_not_used(tmp_path):
    options = {"folder": tmp_path, "checkpoint_seconds": 0}
    run({"name": "dan"}, **options)
    assert run({"name": "dan"}, **options)[1].resumed_at == 2
    assert run({"name": "dan"}, rows=np.arange(15), **options)[1].resumed_at == 0
    assert run({"name": "dan"}, target=scans(5)[0], **options)[1].resumed_at == 0


def test_labels_of_unlabelled_rows_change_nothing():
    store, labels = scans(0, count=32)
    others = labels.copy()
    others[16:] = np.random.default_rng(0).permutation(others[16:])
    assert not np.array_equal(labels, others)
    for name in ("dann", "mcc"):
        results = [
            run({"name": name}, source=(store, y), target=store, rows=np.arange(16, 32))[0] for y in (labels, others)
        ]
        assert same(state_of(*results[0]), state_of(*results[1]))


@pytest.mark.parametrize("policy", ["train", "recalibrate", "freeze"])
def test_running_statistics_are_the_targets_unless_the_sources_are_kept(policy):
    settings = {"name": "dann", "rate": 1e-30, "weight_decay": 0, "batch_norm": policy, "critic_rate": 1e-30}
    dark, bright = scans(0), scans(0, tone=lambda images, _: 1 - images)
    target, other = scans(1)[0], scans(1, tone=brighter_outside)[0]
    one, _ = run(settings, source=dark, target=target)
    two, _ = run(settings, source=bright, target=target)
    three, _ = run(settings, source=dark, target=other)

    def of(modules):
        return [layer.running_mean for layer in normalisation_layers(modules[0])]

    assert same(of(one), of(two))
    assert same(of(one), of(three)) == (policy == "freeze")
    assert same(of(one), of(model())) == (policy == "freeze")


def test_adaptive_batch_norm_has_the_mean_and_variance_of_the_unlabelled_images_and_no_other_change():
    before, target = model(), scans(1, tone=brighter_outside)[0]
    settings = {"name": "adaptive_batch_norm", "epochs": 0, "batch": 8}
    after, result = run(settings, target=target, validation=np.arange(12, 16))
    assert same(parameters_of(*before), parameters_of(*after))
    maps = before[0].body.block1.conv(to_input(torch.from_numpy(target.images), **INPUT)).detach().double()
    layer = after[0].body.block1.bn
    parts = maps.split(8)
    torch.testing.assert_close(layer.running_mean.double(), maps.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    expected = torch.stack([part.var((0, 2, 3)) for part in parts]).mean(0)
    torch.testing.assert_close(layer.running_var.double(), expected, rtol=1e-4, atol=1e-6)
    assert (result.best_epoch, len(result.curves)) == (0, 1)
    again, _ = run(settings, target=target, source=scans(4))
    assert same(state_of(*after), state_of(*again))


def test_unlabelled_images_are_seen_equally_often_in_batches_as_large_as_the_sources():
    store, _ = scans(0)
    adapt = Unlabelled(store, np.arange(3, 10))
    seen = []
    for epoch in range(7):
        halves = ImageHalves(adapt, count=17, batch=8, seed=1, epoch=epoch)
        assert [len(halves[number]) for number in range(2)] == [8, 9]
        seen += halves.rows.tolist()
    assert set(np.unique(seen, return_counts=True)[1]) == {17}
    assert set(seen) == set(range(3, 10))


def test_half_precision_and_another_layout_are_adapted_too():
    _, result = run({"name": "dan"}, precision=Precision("bfloat16", True))
    assert np.isfinite(result.curves[-1]["train_penalty"])


def test_what_does_not_go_together_is_refused():
    store, labels = scans(0)
    rows = np.arange(16)

    def refused(settings, adapt, modules=None, **options):
        train(
            *(modules or model()),
            parse_method(settings),
            store,
            labels,
            rows,
            NOBODY,
            input=INPUT,
            adapt=adapt,
            **options,
        )

    with pytest.raises(UserError, match="method dann: there are no unlabelled rows of a target"):
        refused("dann", None)
    with pytest.raises(UserError, match="method dann: there are no unlabelled rows of a target"):
        refused("dann", Unlabelled(store, NOBODY))
    with pytest.raises(UserError, match=r"method scratch: learns from labels only; .* choose dann"):
        refused("scratch", Unlabelled(store, rows))
    with pytest.raises(UserError, match="devices: is 2, but mcc compares whole batches"):
        refused("mcc", Unlabelled(store, rows), devices=2)
    coloured = SimpleNamespace(images=store.images.repeat(3, axis=1), row_digests=store.row_digests)
    with pytest.raises(UserError, match="channels: the source has 1 and the unlabelled target has 3"):
        refused("dann", Unlabelled(coloured, rows))
    network = build_network("convnext_atto", in_channels=1)
    with pytest.raises(UserError, match="adaptive_batch_norm: convnext_atto has no batch norm"):
        refused("adaptive_batch_norm", Unlabelled(store, rows), (network, build_head("linear", network.features, 3)))


# Segmentation


class Domains:
    """Phantom heads of one scanner as source, and of another as target, prepared by the source's plan."""

    def __init__(self, folder, **options):
        make = DATASETS.get("phantom")
        shared = {"subjects": 4, "task": "segmentation", "contrast": ["flair"], **options}
        manifest, other = make(**shared, first_subject=3), make(**{**shared, "contrast": ["t1"]}, first_subject=20)
        self.labels = manifest.mask_labels
        self.plan = make_plan(fingerprint(manifest, np.arange(4)), overrides={"batch": 2, "features": [4, 8]})
        self.source, self.target = (open_cases(domain, self.plan, folder) for domain in (manifest, other))


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    return Domains(tmp_path_factory.mktemp("volumes"), spacing=8)


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    return Domains(tmp_path_factory.mktemp("slices"), slices=1, size=48)


def segment(domains, settings, *, network="residual_unet", loss="dice_ce", target=None, **options):
    method = parse_method({"epochs": 2, "batch": 2, "rate": 3e-3, **settings})
    built = build_segmentation_network(
        network, in_channels=1, dims=domains.plan.dims, features=domains.plan.features, strides=domains.plan.strides
    )
    modules = built, pixel_head(built.features, outputs(loss, domains.labels))
    adapt = None if method.labels else Unlabelled(target or domains.target, np.arange(4))
    return modules, train_segmenter(
        *modules, method, domains.source, np.arange(3), options.pop("validation", NOBODY),
        plan=domains.plan, labels=domains.labels, loss=loss, adapt=adapt, **options,
    )  # fmt: skip


class WithoutMasks:
    """Cases that have no mask at all."""

    def __init__(self, cases: CaseStore) -> None:
        for name in ("channels", "image", "padding", "release", "row_digests"):
            setattr(self, name, getattr(cases, name))


@pytest.mark.parametrize(("name", "dims"), [("dann", 2), ("dann", 3), ("dan", 3), ("deep_coral", 2), ("mcc", 3)])
def test_segmenters_in_two_and_three_dimensions_are_adapted_without_a_mask(name, dims, volumes, slices):
    domains = slices if dims == 2 else volumes
    options = {"augment": VolumeAugment(flip=0.5, rotate=10), "validation": np.arange(3, 4)}
    one, result = segment(domains, {"name": name, "voxels": 50}, **options)
    two, _ = segment(domains, {"name": name, "voxels": 50}, target=WithoutMasks(domains.target), **options)
    assert domains.plan.dims == dims
    assert same(state_of(*one), state_of(*two))
    assert np.isfinite([row["train_penalty"] for row in result.curves[1:]]).all()
    plain, _ = segment(domains, {"name": "scratch", "select": "last"}, **options)
    nothing, _ = segment(domains, {"name": name, "voxels": 50, "weight": 0}, **options)
    assert same(parameters_of(*plain), parameters_of(*nothing))
    assert not same(parameters_of(*plain), parameters_of(*one))


def test_a_killed_adaptation_of_a_segmenter_goes_on_and_ends_with_the_same_bytes(tmp_path, volumes):
    settings, options = {"name": "dann", "epochs": 3, "voxels": 50}, {"augment": VolumeAugment(flip=0.5), "seed": 4}
    whole, _ = segment(volumes, settings, **options)
    options |= {"folder": tmp_path, "checkpoint_seconds": 0}
    with pytest.raises(KilledError):
        segment(volumes, settings, **options, advance=kill_after(3))
    resumed, result = segment(volumes, settings, **options)
    assert result.resumed_at > 0
    assert same(state_of(*whole), state_of(*resumed))


def test_what_a_segmenter_cannot_do_is_refused(slices):
    with pytest.raises(UserError, match="method mcc: needs classes that exclude each other, and loss region"):
        segment(slices, {"name": "mcc"}, loss="region")
    with pytest.raises(UserError, match="adaptive_batch_norm: residual_unet has no batch norm"):
        segment(slices, {"name": "adaptive_batch_norm", "epochs": 0, "rate": 1e-4})


def test_statistics_of_a_segmenter_with_batch_norm_are_estimated_on_the_target(slices):
    settings = {"name": "adaptive_batch_norm", "epochs": 0, "rate": 1e-4}
    one, _ = segment(slices, settings, network="unet")
    two, _ = segment(slices, settings, network="unet", target=slices.source)
    assert same(parameters_of(*one), parameters_of(*two))
    means = [[layer.running_mean for layer in normalisation_layers(modules[0])] for modules in (one, two)]
    assert not same(*means)


# What it is for


@pytest.fixture(scope="module")
def learned():
    """A model of the source, labelled, that is right there and often wrong on the target."""
    source, labels = scans(0, count=128)
    modules = model()
    method = parse_method({"name": "scratch", "epochs": 8, "batch": 16})
    train(*modules, method, source, labels, np.arange(128), NOBODY, input=INPUT)
    return modules, (source, labels), scans(1, count=128, tone=brighter_outside)[0]


def accuracy(modules, tone):
    store, labels = scans(9, count=100, tone=tone)
    return (predict(*modules, store, np.arange(100), input=INPUT).argmax(axis=1) == labels).mean()


@pytest.mark.slow
@pytest.mark.parametrize("settings", [*({"name": name, "batch_norm": "freeze"} for name in LEARNING), {}], ids=repr)
def test_adaptation_raises_the_accuracy_on_the_target(learned, settings):
    """With the source's statistics kept, it is the penalty alone that helps."""
    modules, (source, labels), target = learned
    assert accuracy(modules, lambda images, _: images) > 0.95
    before = accuracy(modules, brighter_outside)
    assert before < 0.8
    chosen = {"rate": 3e-4, "epochs": 3, "batch": 16, **settings} if settings else {"name": "adaptive_batch_norm"}
    found = deepcopy(modules)
    train(
        *found, parse_method(chosen), source, labels, np.arange(128), NOBODY,
        input=INPUT, adapt=Unlabelled(target, np.arange(128)),
    )  # fmt: skip
    assert accuracy(found, brighter_outside) > before + 0.15
