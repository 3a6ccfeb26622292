"""Pictures: contrasts as radiologists know them, and locations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from mrtransfer.common.errors import UserError
from mrtransfer.data.phantom.acquisition import SCANNERS, acquire, export
from mrtransfer.data.phantom.contrast import CONTRASTS
from mrtransfer.data.phantom.head import head
from mrtransfer.data.phantom.render import Scan, parse, render, render_labels, render_many, render_mask, render_scan
from mrtransfer.data.phantom.tissues import Tissue
from mrtransfer.data.phantom.tumours import CLASSES, lesion


def brightness(contrast, scanner, subject, kind="no_tumour", z=18.0):
    """Mean grey value by tissue, away from tissue borders."""
    scan = Scan(subject=subject, lesion=kind, z=z, contrast=contrast, scanner=scanner, size=192)
    image, labels = render_scan(scan), render_labels(scan.location)
    means = {}
    for tissue in Tissue:
        inside = ndimage.binary_erosion(labels == tissue)
        if inside.sum() > 12:
            means[tissue] = image[inside].mean()
    return means


def middle(subject, kind):
    return round(float(np.mean(lesion(0, subject, kind).heights(head(0, subject)))), 2)


@pytest.mark.parametrize("scanner", SCANNERS)
@pytest.mark.parametrize("subject", [0, 1])
def test_tissues_are_as_bright_as_radiologists_know_them(scanner, subject):
    t1, t2, flair = (brightness(c, scanner, subject) for c in ("t1", "t2", "flair"))
    assert t1[Tissue.WHITE] > t1[Tissue.GREY] > t1[Tissue.CSF]
    assert t2[Tissue.CSF] > t2[Tissue.GREY] > t2[Tissue.WHITE]
    assert flair[Tissue.GREY] > flair[Tissue.WHITE] > flair[Tissue.CSF]


@pytest.mark.parametrize("scanner", SCANNERS)
def test_lesions_look_as_radiologists_know_them(scanner):
    z = middle(3, "meningioma")
    plain, enhanced = (brightness(c, scanner, 3, "meningioma", z) for c in ("t1", "t1ce"))
    assert enhanced[Tissue.MENINGIOMA] > 1.15 * enhanced[Tissue.WHITE]
    assert plain[Tissue.MENINGIOMA] < plain[Tissue.WHITE]
    subject = next(s for s in range(20) if lesion(0, s, "glioma").oedema > 8)
    flair = brightness("flair", scanner, subject, "glioma", middle(subject, "glioma"))
    assert flair[Tissue.OEDEMA] > 1.15 * flair[Tissue.WHITE]


@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("size", [48, 64, 100, 128])
def test_images_have_the_asked_size_and_use_the_grey_scale(contrast, size):
    image = render(Scan(subject=2, contrast=contrast, size=size).location)
    assert image.shape == (size, size)
    assert image.dtype == np.uint8
    assert image.max() > 180
    assert image.min() < 15


def test_the_same_location_gives_the_same_bytes_whatever_was_rendered_before():
    locations = [
        Scan(subject=s, lesion=k, z=10.5, scanner=m, size=64).location for s in (4, 5) for k in CLASSES for m in "ab"
    ]
    forwards, backwards = render_many(locations), render_many(locations[::-1])[::-1]
    np.testing.assert_array_equal(forwards, backwards)
    assert len({image.tobytes() for image in forwards}) == len(locations)


def test_scanners_show_the_same_anatomy_differently():
    one, other = (render_scan(Scan(subject=1, contrast="t1", scanner=s)).astype(float) for s in "ac")
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.85
    assert np.abs(one - other).mean() > 3


def test_the_older_scanner_is_noisier():
    def noise(scanner):
        air = render_scan(Scan(subject=1, contrast="t2", scanner=scanner, size=128))[:10, :10]
        return air.std()

    assert noise("c") > noise("a") > 0


@pytest.mark.parametrize("kind", CLASSES)
def test_a_mask_is_where_the_tumour_is(kind):
    z = 10.0 if kind == "no_tumour" else middle(7, kind)
    location = Scan(subject=7, lesion=kind, z=z, size=128).location
    whole, core = render_mask(location), render_mask(location + "&region=core")
    labels = render_labels(location)
    np.testing.assert_array_equal(whole, np.isin(labels, [t for t in Tissue if t >= Tissue.OEDEMA]))
    assert not (core & ~whole).any()
    assert core.any() == (kind != "no_tumour")


def test_masks_of_small_images_agree_with_those_of_large_ones():
    scan = {"subject": 7, "lesion": "glioma", "z": middle(7, "glioma")}
    small, large = (render_mask(Scan(**scan, size=size).location).mean() for size in (64, 256))
    assert small == pytest.approx(large, rel=0.2)


@given(
    seed=st.integers(0, 99),
    subject=st.integers(0, 10**6),
    lesion=st.sampled_from(CLASSES),
    z=st.floats(-60, 80),
    contrast=st.sampled_from(CONTRASTS),
    scanner=st.sampled_from(list(SCANNERS)),
    size=st.integers(16, 1024),
)
def test_locations_are_read_back(**options):
    scan = Scan(**options)
    assert parse(scan.location) == scan


def test_a_location_may_leave_things_out():
    assert parse("phantom:subject=3&contrast=t2") == Scan(subject=3, contrast="t2")


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("scan.png", "not a phantom"),
        ("phantom:contrst=t1", "contrast"),
        ("phantom:contrast=t1c", "'t1ce'"),
        ("phantom:scanner=z", "scanner"),
        ("phantom:lesion=meningoma", "'meningioma'"),
        ("phantom:size=abc", "size=abc is not a number"),
        ("phantom:size=4", "between 16 and 1024"),
        ("phantom:subject", "has no value"),
        ("phantom:subject=-1", "0 or more"),
        ("phantom:z=nan", "finite"),
        ("phantom:region=rim", "region"),
    ],
)
def test_a_wrong_location_is_named_with_what_would_be_right(location, said):
    with pytest.raises(UserError, match=said):
        render_mask(location)


def test_images_of_different_sizes_do_not_go_into_one_array():
    with pytest.raises(UserError, match="different sizes"):
        render_many([Scan(size=32).location, Scan(size=48).location])


def test_acquisition_keeps_shape_and_is_never_negative():
    signal = np.random.default_rng(0).random((40, 56)).astype(np.float32)
    for scanner in SCANNERS.values():
        image = acquire(signal, 2.0, scanner, np.random.default_rng(1))
        assert image.shape == signal.shape
        assert image.min() >= 0
        assert export(image, scanner, np.random.default_rng(2)).dtype == np.uint8
