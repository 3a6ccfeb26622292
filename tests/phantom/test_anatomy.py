"""Heads, tissues and lesions."""

import numpy as np
import pytest
from scipy import interpolate, ndimage

from mrtransfer.data.phantom.contrast import CONTRASTS, SpinEcho
from mrtransfer.data.phantom.grid import Grid, RandomField
from mrtransfer.data.phantom.head import head, place
from mrtransfer.data.phantom.render import label_grid
from mrtransfer.data.phantom.tissues import BRAIN, CORE, Tissue, relaxation
from mrtransfer.data.phantom.tumours import CLASSES, lesion

SUBJECTS = range(6)
TUMOURS = [kind for kind in CLASSES if kind != "no_tumour"]


def through_the_middle(subject, kind, size=96):
    body, tumour = head(0, subject), lesion(0, subject, kind)
    z = float(np.mean(tumour.heights(body)))
    grid = Grid.axial(z, size)
    return label_grid(0, subject, kind, grid)[0][0], place(body, grid)


def test_a_volume_is_its_slices():
    volume = Grid.square((-20.0, 5.0, 30.0), 48)
    labels, grain = label_grid(3, 1, "glioma", volume)
    assert labels.shape == volume.shape
    for index, z in enumerate(volume.z):
        one, its_grain = label_grid(3, 1, "glioma", Grid.axial(z, 48))
        np.testing.assert_allclose(grain[index], its_grain[0], atol=1e-4)
        # A hair's breadth beside a boundary may round either way.
        assert (labels[index] != one[0]).mean() < 2e-3


def test_subjects_differ_and_repeat():
    grid = Grid.axial(15, 64)
    first, again, other = (label_grid(0, s, "no_tumour", grid)[0] for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.1


@pytest.mark.parametrize("subject", SUBJECTS)
def test_the_head_is_layered_from_air_to_brain(subject):
    labels = label_grid(0, subject, "no_tumour", Grid.axial(25, 128))[0][0]
    assert labels[0].max() == labels[:, 0].max() == Tissue.AIR  # nothing is cut off by the field of view
    inside = ndimage.binary_fill_holes(labels != Tissue.AIR)
    depth = ndimage.distance_transform_edt(inside)
    means = [depth[labels == t].mean() for t in (Tissue.SKIN, Tissue.FAT, Tissue.MARROW, Tissue.GREY, Tissue.WHITE)]
    assert means == sorted(means)
    assert 0.3 < np.isin(labels, BRAIN).sum() / inside.sum() < 0.8


@pytest.mark.parametrize("subject", SUBJECTS)
def test_white_matter_is_covered_by_grey_matter(subject):
    labels = label_grid(0, subject, "no_tumour", Grid.axial(45, 128))[0][0]
    around = ndimage.binary_dilation(labels == Tissue.WHITE) & (labels != Tissue.WHITE)
    assert (labels[around] == Tissue.GREY).mean() > 0.8


@pytest.mark.parametrize("kind", TUMOURS)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_tumours_are_within_the_skull(kind, subject):
    labels, at = through_the_middle(subject, kind)
    core = np.isin(labels, CORE)
    assert core.sum() * Grid.axial(0, 96).pixel ** 2 > 25  # mm²
    assert at.depth[0][core].min() > -2  # a dural tail lies on the skull's inner surface


@pytest.mark.parametrize("subject", range(8))
def test_each_tumour_is_where_its_class_is(subject):
    labels, at = through_the_middle(subject, "glioma")
    glioma = np.isin(labels, CORE)
    assert np.median(at.depth[0][glioma]) > 6  # in the brain
    tumour = lesion(0, subject, "meningioma")
    body = head(0, subject)
    centre = np.abs(np.array(tumour.centre))
    surface = 1 - np.sqrt((((centre - [0, 0, 8]) / body.axes) ** 2).sum())
    reaches_falx = centre[0] < tumour.half[0]
    assert surface * 67 < 1.2 * max(tumour.half) or reaches_falx or tumour.centre[2] < 0
    x, y, z = lesion(0, subject, "pituitary").centre
    assert abs(x) < 6
    assert 15 < y < 33
    assert -36 < z < -15


def test_oedema_spares_the_cortex_and_needs_a_tumour():
    for subject in range(12):
        grid = Grid.axial(20, 96)
        healthy = label_grid(0, subject, "no_tumour", grid)[0]
        assert not np.isin(healthy, (*CORE, Tissue.OEDEMA)).any()
        ill = label_grid(0, subject, "glioma", grid)[0]
        oedema = ill == Tissue.OEDEMA
        assert (healthy[oedema] == Tissue.WHITE).mean() > 0.5 if oedema.sum() > 20 else True


def test_some_gliomas_enhance_and_some_do_not():
    rims = [lesion(0, subject, "glioma").rim > 0 for subject in range(40)]
    assert 0.5 < np.mean(rims) < 0.95


def test_no_tumour_has_no_lesion():
    assert lesion(0, 0, "no_tumour") is None


def test_t1_grows_with_field_but_not_that_of_csf():
    low, high = relaxation(1.5), relaxation(3.0)
    for tissue in BRAIN:
        assert 1.2 < high.t1[tissue] / low.t1[tissue] < 1.4
    assert high.t1[Tissue.CSF] == low.t1[Tissue.CSF]
    np.testing.assert_array_equal(low.t2, high.t2)


def test_agent_shortens_t1_where_the_barrier_is_open():
    before, after = relaxation(1.5), relaxation(1.5, agent=True)
    assert np.all(after.t1 <= before.t1)
    assert after.t1[Tissue.GLIOMA_RIM] < 0.5 * before.t1[Tissue.GLIOMA_RIM]
    assert after.t1[Tissue.WHITE] > 0.95 * before.t1[Tissue.WHITE]
    signal = SpinEcho(450, 10).signal(after) / SpinEcho(450, 10).signal(before).clip(1e-9)
    assert signal[Tissue.MENINGIOMA] > 1.5


def test_a_subject_deviates_alike_on_every_scanner():
    table = relaxation(1.5)
    draws = [relaxation(field, generator=np.random.default_rng(5)) for field in (1.0, 3.0)]
    ratios = [r.t1 / relaxation(field).t1 for r, field in zip(draws, (1.0, 3.0), strict=True)]
    np.testing.assert_allclose(ratios[0], ratios[1])
    assert not np.allclose(draws[0].t2, table.t2)


def test_every_contrast_is_made_by_every_scanner():
    from mrtransfer.data.phantom.acquisition import SCANNERS

    for scanner in SCANNERS.values():
        assert set(scanner.sequences) == set(CONTRASTS)


def test_the_random_field_is_a_cubic_spline_with_its_own_derivatives():
    field = RandomField.draw(np.random.default_rng(0), 20.0, extent=100.0)
    grid = Grid.square((3.0, 3.1), 200)
    x, y, z = (axis.ravel().astype(float) for axis in grid.axes())
    n = len(field.coefficients)
    knots = (np.arange(-2, n + 2) - (n - 1) / 2) * 20.0
    values = field.coefficients.astype(float)
    for axis, points in enumerate((z, -y, x)):  # coefficients run as the image's rows do
        basis = interpolate.BSpline(knots, np.eye(n), 3, extrapolate=True)
        values = np.moveaxis(np.tensordot(basis(points), np.moveaxis(values, axis, 0), (1, 0)), 0, axis)
    here, dx, dy, dz = field.with_gradient(grid)
    inner = (slice(None), slice(20, -20), slice(20, -20))
    np.testing.assert_allclose(here[inner], values[inner], atol=2e-4)
    np.testing.assert_allclose(np.gradient(here, x, axis=2)[inner], dx[inner], atol=3e-3)
    np.testing.assert_allclose(np.gradient(here, y, axis=1)[inner], dy[inner], atol=3e-3)
    np.testing.assert_allclose((here[1] - here[0]) / 0.1, dz[0], atol=2e-3)


def test_the_random_field_has_unit_variance():
    values = [
        RandomField.draw(np.random.default_rng(s), 12.0).on(Grid.square((-30.0, 0.0, 30.0), 48)) for s in range(8)
    ]
    assert np.std(values) == pytest.approx(1, abs=0.06)
