"""Volumes of the phantom: heads and knees in 3-D, their tumours' classes, and how contrasts show them."""

import time
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from mrtransfer.common.errors import UserError
from mrtransfer.data.datasets.phantom import phantom
from mrtransfer.data.phantom.acquisition import SCANNERS
from mrtransfer.data.phantom.contrast import CONTRASTS
from mrtransfer.data.phantom.grid import Grid
from mrtransfer.data.phantom.knee import knee, knee_labels
from mrtransfer.data.phantom.render import render_mask
from mrtransfer.data.phantom.tissues import Tissue
from mrtransfer.data.phantom.tumours import lesion
from mrtransfer.data.phantom.volume import LABELS, render_volume
from mrtransfer.data.phantom.volume_scan import ANATOMIES, VolumeScan, is_volume, parse_volume
from mrtransfer.data.volume import read_case, read_volume

COARSE = {"spacing": (6.0, 6.0, 6.0), "size": (32, 36, 22)}
NECROSIS, OEDEMA, ENHANCING = 1, 2, 3
# The first subject of each anatomy whose tumour has all parts, with oedema of some width.
SHOWN = {"brain": ("glioma", next(s for s in range(20) if lesion(0, s, "glioma").oedema > 10)), "knee": ("sarcoma", 0)}


def rendered(scan, contrast):
    return render_volume(replace(scan, contrast=contrast).location)[0]


@pytest.fixture(scope="module", params=ANATOMIES)
def shown(request):
    """A subject of each anatomy, its mask, and tissue around the tumour that is no part of it."""
    kind, subject = SHOWN[request.param]
    scan = VolumeScan(request.param, 0, subject, kind)
    mask = rendered(scan, "mask")
    around = ndimage.binary_dilation(mask > 0, iterations=6) & ~ndimage.binary_dilation(mask > 0, iterations=2)
    return scan, mask, around


def test_a_volume_is_int16_on_the_asked_grid_and_the_same_every_time():
    scan = VolumeScan(lesion="glioma", subject=3, **COARSE)
    volume, affine = render_volume(scan.location)
    assert volume.shape == (32, 36, 22)
    assert volume.dtype == np.int16
    assert volume.min() >= 0
    assert nib.aff2axcodes(affine) == ("R", "A", "S")
    np.testing.assert_allclose(nib.affines.voxel_sizes(affine), 6)
    render_volume(replace(scan, subject=4).location)
    np.testing.assert_array_equal(render_volume(scan.location)[0], volume)
    np.testing.assert_array_equal(read_volume(scan.location, ".").data, volume)
    assert (rendered(scan, "t2") != volume).mean() > 0.5


@pytest.mark.parametrize("scanner", SCANNERS)
def test_tumour_parts_are_as_visible_as_in_life(shown, scanner):
    scan, mask, around = shown
    mean = {}
    for contrast in ("t1", "t1ce", "t2", "flair"):
        volume = rendered(replace(scan, scanner=scanner), contrast).astype(float)
        surroundings = np.median(volume[around & (volume > 0)])
        mean[contrast] = {part: np.median(volume[mask == part]) / surroundings for part in (1, 2, 3)}
    gain = {part: mean["t1ce"][part] / mean["t1"][part] for part in (1, 2, 3)}
    assert gain[ENHANCING] > 1.15 * gain[NECROSIS]  # only the rim takes up the agent
    assert gain[ENHANCING] > 1.15 * gain[OEDEMA]
    assert mean["t1ce"][NECROSIS] < mean["t1ce"][ENHANCING]
    for contrast in ("t2", "flair"):
        assert mean[contrast][OEDEMA] > 1.1
    assert mean["t1"][OEDEMA] < mean["flair"][OEDEMA]


def test_in_a_head_the_rim_is_bright_after_the_agent_only_and_necrosis_dark():
    kind, subject = SHOWN["brain"]
    scan = VolumeScan("brain", 0, subject, kind, extracted=True)
    mask = rendered(scan, "mask")
    white = np.percentile(rendered(scan, "t1")[mask == 0], 95)
    assert np.median(rendered(scan, "t1")[mask == ENHANCING]) < white
    post = rendered(scan, "t1ce")
    assert np.median(post[mask == ENHANCING]) > 1.1 * np.median(post[(mask == 0) & (post > 0)])
    assert np.median(post[mask == NECROSIS]) < 0.8 * np.median(post[mask == ENHANCING])


@pytest.mark.parametrize(("anatomy", "kind"), [("brain", "glioma"), ("brain", "meningioma"), ("knee", "sarcoma")])
@pytest.mark.parametrize("subject", range(3))
def test_a_tumour_is_one_piece_of_a_plausible_size(anatomy, kind, subject):
    scan = VolumeScan(anatomy, 0, subject, kind)
    mask = rendered(scan, "mask")
    parts, _ = ndimage.label(mask > 0, np.ones((3, 3, 3)))
    largest = np.bincount(parts.ravel())[1:].max()
    assert largest > 0.95 * (mask > 0).sum()  # crumbs smaller than half a voxel's points may part from it
    assert 1 < (mask > 0).sum() * 0.027 < 250  # ml
    assert not rendered(replace(scan, lesion="no_tumour"), "mask").any()


def test_all_contrasts_and_scanners_share_one_anatomy():
    scan = VolumeScan("brain", 0, 2, "glioma", **COARSE)
    masks = [rendered(replace(scan, scanner=s), "mask") for s in SCANNERS]
    assert all((mask == masks[0]).all() for mask in masks)
    one, other = (rendered(replace(scan, scanner=s), "t1").astype(float) for s in "ac")
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.85
    assert (one != other).mean() > 0.5


def test_a_fine_volume_shows_the_slices_of_the_same_subject():
    kind, subject = "meningioma", 4
    scan = VolumeScan("brain", 0, subject, kind, contrast="mask", spacing=(1.84375,) * 3, size=(128, 128, 40))
    volume, affine = render_volume(scan.location)
    heights = affine[2, 3] + affine[2, 2] * np.arange(40)
    index = int(np.argmax((volume > 0).sum((0, 1))))
    slice_ = render_mask(f"phantom:subject={subject}&lesion={kind}&z={heights[index]}&size=128")
    # Rows run from front to back and columns to the patient's left; the volume's centre is 1 mm further back.
    from_volume = np.roll(volume[::-1, ::-1, index].T > 0, 0, axis=0)
    overlap = max(
        2 * (from_volume & np.roll(slice_, shift, axis=0)).sum() / (from_volume.sum() + slice_.sum())
        for shift in (-1, 0, 1)
    )
    assert overlap > 0.9


@pytest.mark.parametrize("factors", [(1, 1, 2), (2, 2, 1)])
def test_coarse_voxels_hold_the_same_tumour(factors):
    fine = VolumeScan("brain", 0, 3, "glioma", contrast="mask", spacing=(3.0, 3.0, 3.0), size=(64, 72, 44))
    spacing = tuple(3.0 * k for k in factors)
    size = tuple(n // k for n, k in zip(fine.size, factors, strict=True))
    coarse = replace(fine, spacing=spacing, size=size)
    volumes = [(render_volume(scan.location)[0] > 0).sum() * np.prod(scan.spacing) / 1000 for scan in (fine, coarse)]
    assert volumes[1] == pytest.approx(volumes[0], rel=0.15)
    moved = [ndimage.center_of_mass(render_volume(scan.location)[0] > 0) for scan in (fine, coarse)]
    places = [nib.affines.apply_affine(scan.affine, at) for scan, at in zip((fine, coarse), moved, strict=True)]
    np.testing.assert_allclose(*places, atol=2.0)


def test_an_extracted_brain_has_nothing_around_it_and_all_of_its_tumour():
    scan = VolumeScan("brain", 0, 4, "meningioma", extracted=True)
    volume, mask = rendered(scan, "t1"), rendered(scan, "mask")
    inside = volume > 0
    assert 0.2 < inside.mean() < 0.5
    assert inside[mask > 0].mean() > 0.99
    assert ndimage.label(ndimage.binary_closing(inside, iterations=2))[1] == 1
    whole = rendered(replace(scan, extracted=False), "t1")
    np.testing.assert_array_equal(whole[inside], volume[inside])
    assert (whole > 0).mean() > 0.9  # noise


def test_the_scale_differs_between_scans_and_the_noise_is_rician():
    small = {"spacing": (1.5, 1.5, 1.5), "size": (40, 40, 12)}
    levels = [np.percentile(rendered(VolumeScan("knee", 0, s, **small), "pd"), 99) for s in range(8)]
    assert np.std(np.log(levels)) > 0.1
    scan = VolumeScan("knee", 0, 1, **COARSE, scanner="c")
    air = rendered(scan, "t1")[:4, :4].astype(float)
    assert air.mean() / air.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.2)  # Rayleigh: no signal


def test_the_bias_field_is_three_dimensional():
    volume = rendered(VolumeScan("brain", 0, 1, scanner="b", extracted=True), "pd").astype(float)
    levels = [np.median(part[part > 0]) for part in np.array_split(volume, 4, axis=2)]
    sides = [np.median(part[part > 0]) for part in np.array_split(volume, 4, axis=0)]
    assert np.ptp(levels) > 0.05 * np.mean(levels)
    assert np.ptp(sides) > 0.05 * np.mean(sides)


def test_a_knee_has_the_layers_and_sizes_of_a_knee():
    for subject in range(4):
        grid = Grid.box((80, 80, 60), (2.0, 2.0, 2.0))
        healthy, labels, _ = knee_labels(0, subject, "no_tumour", grid)
        assert healthy is labels
        assert labels[:, 0].max() == labels[:, :, 0].max() == Tissue.AIR
        depth = ndimage.distance_transform_edt(labels != Tissue.AIR)
        means = [depth[labels == t].mean() for t in (Tissue.SKIN, Tissue.FAT, Tissue.FATTY_MARROW)]
        assert means == sorted(means)
        bone = np.isin(labels, (Tissue.BONE, Tissue.FATTY_MARROW))
        at_condyles = np.flatnonzero(bone[36].any(axis=0))  # 13 mm above the joint
        assert 60 < np.ptp(at_condyles) * 2 / knee(0, subject).scale < 95  # mm
        marrow = ndimage.binary_dilation(labels == Tissue.FATTY_MARROW) & (labels != Tissue.FATTY_MARROW)
        assert (labels[marrow] == Tissue.BONE).mean() > 0.85  # marrow is in a cortex, which is thinner than a voxel
        for tissue in (Tissue.CARTILAGE, Tissue.MENISCUS, Tissue.TENDON, Tissue.JOINT_FLUID, Tissue.MUSCLE):
            assert (labels == tissue).any()


def test_a_sarcoma_is_mostly_where_bone_was():
    grid = Grid.box((80, 80, 60), (2.0, 2.0, 2.0))
    for subject in range(4):
        healthy, labels, _ = knee_labels(0, subject, "sarcoma", grid)
        core = np.isin(labels, (Tissue.GLIOMA, Tissue.GLIOMA_RIM, Tissue.NECROSIS))
        assert np.isin(healthy[core], (Tissue.BONE, Tissue.FATTY_MARROW)).mean() > 0.3
        assert not (labels[core] == Tissue.SKIN).any()


@given(
    st.sampled_from(list(ANATOMIES)),
    st.integers(0, 99),
    st.sampled_from([*CONTRASTS, "mask"]),
    st.tuples(*[st.sampled_from([0.5, 1.0, 2.5, 3.333, 20.0])] * 3),
    st.tuples(*[st.integers(4, 512)] * 3),
)
def test_locations_are_read_back(anatomy, subject, contrast, spacing, size):
    scan = VolumeScan(anatomy, 1, subject, "no_tumour", contrast, "b", spacing, size, anatomy == "brain")
    assert is_volume(scan.location)
    assert parse_volume(scan.location) == scan


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("phantom:volume=1&anatomy=nee", "'knee'"),
        ("phantom:volume=1&anatomy=knee&lesion=glioma", "unknown lesion 'glioma'"),
        ("phantom:volume=1&contrast=t1c", "'t1ce'"),
        ("phantom:volume=1&scanner=z", "scanner"),
        ("phantom:volume=1&spacing=3x3", "three numbers such as 3x3x3"),
        ("phantom:volume=1&spacing=0x3x3", "between 0.5 and 20 mm"),
        ("phantom:volume=1&spacing=nanx3x3", "between 0.5 and 20 mm"),
        ("phantom:volume=1&size=2x9x9", "between 4 and 512"),
        ("phantom:volume=1&subject=x", "subject=x is not a whole number"),
        ("phantom:volume=1&subject=-1", "0 or more"),
        ("phantom:volume=1&anatomy=knee&extracted=1", "no brain to extract"),
        ("phantom:volume=1&colour=1", "unknown key 'colour'"),
    ],
)
def test_a_wrong_location_is_named_with_what_would_be_right(location, said):
    with pytest.raises(UserError, match=said):
        render_volume(location)


def test_the_dataset_has_a_volume_a_subject_and_its_classes():
    manifest = phantom(subjects=4, task="segmentation", contrast=["flair", "t1ce"], scanner=["a", "c"], spacing=8)
    assert manifest.table["subject"].is_unique
    assert manifest.channels == ("flair", "t1ce")
    assert manifest.mask_labels == LABELS
    assert manifest.table["scanner"].tolist() == ["a", "c", "a", "c"]
    case = read_case(manifest, 1)
    assert case.image.shape == (2, 24, 27, 16)
    assert case.spacing == pytest.approx((8, 8, 8))
    assert case.mask.max() <= 3
    assert (case.image[:, 0, 0, 0] == 0).all()  # as after brain extraction
    assert manifest.describe()["mask_regions"] == ["whole tumour", "tumour core", "enhancing tumour"]


def test_other_contrasts_show_the_same_people_and_other_anatomies_others():
    cohorts = [
        phantom(subjects=3, task="segmentation", **options)
        for options in ({"contrast": ["flair", "t1ce"]}, {"contrast": ["t1", "t2"]}, {"anatomy": "knee"})
    ]
    names = [cohort.table["subject"].tolist() for cohort in cohorts]
    assert names[0] == names[1]
    assert not set(names[0]) & set(names[2])
    assert cohorts[0].table["mask"].tolist() == cohorts[1].table["mask"].tolist()


def test_thick_slices_and_given_sizes():
    manifest = phantom(subjects=1, task="segmentation", anatomy="knee", spacing=[2, 2, 5.5], size=[40, 44, 10])
    case = read_case(manifest, 0)
    assert case.image.shape == (1, 40, 44, 10)
    assert case.spacing == pytest.approx((2, 2, 5.5))


def test_slices_for_segmentation_all_have_masks():
    manifest = phantom(subjects=2, task="segmentation", slices=6, size=48)
    assert manifest.table["mask"].notna().all()
    assert manifest.mask_labels.anything_else
    empty = [not read_case(manifest, row).mask.any() for row in range(len(manifest))]
    assert empty == (manifest.labels == 0).tolist()
    assert any(empty)
    assert not all(empty)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"anatomy": "elbow"}, "unknown anatomy 'elbow'"),
        ({"anatomy": "knee", "lesions": ["glioma"]}, "unknown lesion 'glioma'"),
        ({"spacing": [1, 2]}, "one number or three"),
        ({"spacing": "3"}, "one number or three"),
        ({"spacing": 0}, "between 0.5 and 20"),
        ({"size": 64.5}, "one number or three"),
        ({"size": True}, "one number or three"),
        ({"anatomy": "knee", "extracted": True}, "no brain to extract"),
        ({"slices": 3, "spacing": 3}, "spacing is for volumes"),
        ({"slices": 3, "anatomy": "knee"}, "anatomy is for volumes"),
        ({"task": "types", "extracted": True}, "extracted is for volumes"),
        ({"task": "types", "size": [64, 64, 32]}, "one whole number of pixels"),
    ],
)
def test_wrong_options_are_named(options, said):
    with pytest.raises(UserError, match=said):
        phantom(**{"task": "segmentation", **options})


@pytest.mark.slow
def test_a_volume_of_64_by_64_by_48_takes_well_under_a_second():
    started = time.process_time()
    for subject in range(900, 904):
        render_volume(VolumeScan(subject=subject, lesion="glioma", size=(64, 64, 48)).location)
    assert (time.process_time() - started) / 4 < 0.9
