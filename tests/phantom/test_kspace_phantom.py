"""K-space of the phantom: what it is made of, and how like real k-space it is."""

import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrtransfer.common.errors import UserError
from mrtransfer.data.phantom.acquisition import SCANNERS
from mrtransfer.data.phantom.complex_image import complex_image, low_pass
from mrtransfer.data.phantom.contrast import CONTRASTS
from mrtransfer.data.phantom.grid import Grid
from mrtransfer.data.phantom.kspace import coil_images, noise_correlation, receive_array, render_kspace
from mrtransfer.data.phantom.kspace_scan import (
    KSPACE_CONTRASTS,
    PLANES,
    KspaceScan,
    is_kspace,
    kspace_location,
    parse_kspace,
)
from mrtransfer.data.phantom.phase import field
from mrtransfer.data.phantom.render import head_labels
from mrtransfer.data.phantom.texture import band, modulation, paint_vessels, power_law
from mrtransfer.data.phantom.tissues import Tissue
from mrtransfer.data.phantom.volume_scan import is_volume

SMALL = {"matrix": (64, 64), "slices": 2, "coils": 4}
KINDS = [("brain", "axial"), ("knee", "coronal"), ("knee", "axial"), ("knee", "sagittal")]


def to_images(kspace):
    """Centred orthonormal inverse FFT, straight from its definition in NumPy."""
    moved = np.fft.ifftshift(kspace, axes=(-2, -1))
    return np.fft.fftshift(np.fft.ifft2(moved, norm="ortho"), axes=(-2, -1))


def combined(kspace):
    return np.sqrt((np.abs(to_images(kspace)) ** 2).sum(axis=-3))


def accelerated(kspace, acceleration=4, centre=0.08):
    width = kspace.shape[-1]
    columns = np.arange(width) % acceleration == 0
    lines = round(width * centre)
    columns[(width - lines + 1) // 2 :][:lines] = True
    return kspace * columns


def psnr(target, image):
    return 10 * np.log10(target.max() ** 2 / np.mean((target - image) ** 2))


def spectrum(image, edges=(0.02, 0.04, 0.08, 0.12, 0.18, 0.25, 0.35, 0.5)):
    """Mean power (dB) between the frequencies ``edges`` (cycles per pixel), relative to the first."""
    power = np.abs(np.fft.fft2(image)) ** 2
    at = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in image.shape), indexing="ij"))
    mean = np.array([power[(at >= a) & (at < b)].mean() for a, b in pairwise(edges)])
    return 10 * np.log10(mean / mean[0])


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: "-".join(kind))
def volume(request):
    anatomy, plane = request.param
    scan = KspaceScan(anatomy, 0, 3, contrast="t1" if anatomy == "brain" else "pd", scanner="b", plane=plane, **SMALL)
    return scan, render_kspace(scan.location)


def test_kspace_is_complex64_and_the_same_every_time(volume):
    scan, kspace = volume
    assert kspace.shape == (2, 4, 64, 64)
    assert kspace.dtype == np.complex64
    render_kspace(replace(scan, subject=4).location)
    np.testing.assert_array_equal(render_kspace(scan.location), kspace)


def test_kspace_is_the_coils_images_and_noise_of_the_stated_correlation(volume):
    scan, kspace = volume
    seen = coil_images(scan)
    measured = to_images(kspace)
    gain = np.vdot(seen, measured).real / np.vdot(seen, seen).real
    noise = measured / gain - seen
    assert np.abs(noise).std() < 0.2 * np.abs(seen).max()
    flat = noise.transpose(1, 0, 2, 3).reshape(4, -1)
    covariance = flat @ flat.conj().T / flat.shape[1]
    level = np.sqrt(np.diag(covariance).real)
    np.testing.assert_allclose(level, level.mean(), rtol=0.05)
    np.testing.assert_allclose(covariance / np.outer(level, level), noise_correlation(scan), atol=0.05)


def test_coils_are_the_image_times_smooth_maps(volume):
    scan, _ = volume
    image, grid = complex_image(scan, 1)
    maps = receive_array(scan).sensitivities(*grid.axes())
    maps = np.stack([scan.as_slices(one)[0] for one in maps])
    np.testing.assert_allclose(coil_images(scan)[1], maps * image, rtol=1e-5, atol=1e-7)
    smooth = np.abs(maps[:, 16:48, 16:48])
    assert np.abs(np.diff(smooth, axis=2)).max() < 0.2 * smooth.max()


def test_zero_filling_at_four_times_is_visibly_aliased(volume):
    _, kspace = volume
    target = combined(kspace)
    assert 14 < psnr(target[1], combined(accelerated(kspace))[1]) < 32


def test_the_body_fills_the_image_and_fits_into_it():
    for subject in range(6):
        scan = KspaceScan("brain", subject=subject, **SMALL)
        image = np.abs(complex_image(scan, 0)[0])
        body = image > 0.05 * np.percentile(image, 99)
        assert 0.3 < body.mean() < 0.9
        assert body[:, [0, -1]].mean() < 0.1


@pytest.mark.parametrize("plane", PLANES["knee"])
def test_knees_show_head_up_and_have_their_joint_in_the_middle(plane):
    scan = KspaceScan("knee", plane=plane, **SMALL)
    drawn = np.zeros(scan.grid(0.0, (3, 64, 64)).shape)
    where = scan.grid(0.0, (3, 64, 64))
    x, y, z = (np.broadcast_to(axis, drawn.shape) for axis in where.axes())
    up, right = {"axial": (y, x), "coronal": (z, x), "sagittal": (z, -y)}[plane]
    rows, columns = scan.as_slices(up), scan.as_slices(right)
    assert rows.shape == (3, 64, 64)
    assert (np.diff(rows, axis=1) < 0).all()
    assert (np.diff(columns, axis=2) > 0).all()
    assert rows.mean() == pytest.approx(0, abs=1e-3)
    np.testing.assert_allclose(np.diff(columns, axis=2), scan.pixel, rtol=1e-3)


def test_subjects_differ_in_everything_and_contrasts_of_one_in_brightness_only():
    scans = [KspaceScan("brain", subject=subject, **SMALL) for subject in range(4)]
    assert len({scan.pixel for scan in scans}) == 4
    assert len({scan.positions for scan in scans}) == 4
    maps = [receive_array(scan).sensitivities(30.0, 0.0, 0.0) for scan in scans]
    assert all(not np.allclose(maps[0], other, rtol=0.02) for other in maps[1:])
    phases = [np.angle(complex_image(scan, 1)[0])[24:40, 24:40] for scan in scans]
    assert all(np.abs(np.angle(np.exp(1j * (phases[0] - other)))).mean() > 0.2 for other in phases[1:])
    other = replace(scans[0], contrast="t2")
    assert (other.pixel, other.positions, other.spacing) == (scans[0].pixel, scans[0].positions, scans[0].spacing)
    one, two = (np.abs(complex_image(scan, 1)[0]) for scan in (scans[0], other))
    assert np.abs(one / one.mean() - two / two.mean()).mean() > 0.1
    body = [image > 0.05 * np.percentile(image, 99) for image in (one, two)]
    assert (body[0] & body[1]).sum() > 0.8 * (body[0] | body[1]).sum()


def test_phase_is_smooth_and_the_field_adds_to_it_over_a_long_echo():
    scan = KspaceScan("brain", contrast="t1", scanner="b", subject=1, matrix=(96, 96), slices=6)
    image = complex_image(scan, 0)[0]
    steps = np.angle(image[1:] * image[:-1].conj())[16:-16, 16:-16]
    assert 0.01 < np.median(np.abs(steps)) < 0.3
    ppm = field("brain", 0, 1)
    base, vertex = (np.abs(ppm.on(Grid.box((9, 9, 1), (8.0, 8.0, 1.0), (0, 38, z)))).mean() for z in (-26.0, 44.0))
    assert base > 1.5 * vertex  # air beneath the frontal lobes
    assert 0.01 < vertex < 1


def test_fat_suppression_darkens_marrow_and_leaves_muscle():
    scan = KspaceScan("knee", contrast="pd", matrix=(96, 96), slices=1, subject=5)
    full, suppressed = (np.abs(complex_image(replace(scan, contrast=c), 0)[0]) for c in ("pd", "pdfs"))
    ratio = suppressed / np.maximum(full, 1e-6)
    body = full > 0.3 * np.percentile(full, 99)
    assert np.percentile(ratio[body], 10) < 0.35
    assert np.percentile(ratio[body], 90) > 0.9


@pytest.mark.parametrize(("fine", "shape"), [((32, 24), (16, 12)), ((30, 34), (15, 17)), ((36, 42), (12, 14))])
def test_low_pass_is_what_a_scanner_measures_of_the_points(fine, shape):
    points = np.random.default_rng(0).random(fine).astype(np.float32)
    places = [(np.arange(n) + 0.5) / n - 0.5 for n in fine]
    pixels = [(np.arange(n) + 0.5) / n - 0.5 for n in shape]
    waves = [np.arange(n) - n // 2 for n in shape]
    kept = [w[np.abs(w) < n / 2] for w, n in zip(waves, shape, strict=True)]  # but the lone highest of an even size
    out = [np.exp(-2j * np.pi * np.outer(k, place)) for k, place in zip(kept, places, strict=True)]
    back = [np.exp(2j * np.pi * np.outer(pixel, k)) for k, pixel in zip(kept, pixels, strict=True)]
    measured = out[0] @ points @ out[1].T / points.size
    expected = (back[0] @ measured @ back[1].T).real
    found = low_pass(points, shape, 0.0)
    lone = [np.isin(np.rint(np.fft.fftfreq(n) * n), k) for n, k in zip(shape, kept, strict=True)]
    found = np.fft.ifft2(np.fft.fft2(found) * np.outer(lone[0], lone[1])).real
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_low_pass_moves_fat_down_by_rows():
    points = np.zeros((64, 32), dtype=np.float32)
    points[20:30, 10:20] = 1
    still, moved = low_pass(points, (32, 16), 0.0), low_pass(points, (32, 16), 3.0)
    np.testing.assert_allclose(np.roll(still, 3, axis=0), moved, atol=1e-5)


def test_an_oversampled_readout_holds_the_same_image_in_its_middle():
    scan = KspaceScan("brain", subject=2, coils=2, slices=1, matrix=(64, 64))
    wide = replace(scan, matrix=(128, 64), oversampled=True)
    assert wide.crop == (64, 64)
    assert wide.spacing == scan.spacing
    image, twice = np.abs(complex_image(scan, 0)[0]), np.abs(complex_image(wide, 0)[0])
    assert np.corrcoef(image.ravel(), twice[32:96].ravel())[0, 1] > 0.97
    assert twice[:20].max() < 0.1 * twice.max()
    assert render_kspace(wide.location).shape == (1, 2, 128, 64)


def test_textures_have_unit_variance_and_their_scale():
    draw = np.random.default_rng(0)
    for made in (power_law((64, 96), (0.5, 0.5), draw), band((64, 96), (0.5, 0.5), (2.0, 2.0), draw)):
        assert made.shape == (64, 96)
        assert made.std() == pytest.approx(1, abs=1e-4)
    fine, coarse = (
        np.abs(np.diff(band((128, 128), (0.5, 0.5), (s, s), np.random.default_rng(1)))).mean() for s in (1.0, 4.0)
    )
    assert fine > 2 * coarse


def test_texture_spares_water_and_air_and_vessels_spare_bone():
    labels = np.full((3, 200, 200), Tissue.FAT, dtype=np.uint8)
    labels[:, :, :60] = Tissue.JOINT_FLUID
    labels[:, :, 140:] = Tissue.BONE
    factor = modulation(labels[1], (0.5, 0.5), True, np.random.default_rng(0))
    assert (factor[:, :60] == 1).all()
    assert factor[:, 60:140].std() > 0.03
    paint_vessels(labels, "knee", (0.5, 0.5), np.random.default_rng(2))
    assert (labels[:, :, 140:] == Tissue.BONE).all()
    assert 0 < (labels == Tissue.BLOOD).mean() < 0.1


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.integers(0, 99),
    st.sampled_from(KSPACE_CONTRASTS),
    st.sampled_from(list(SCANNERS)),
    st.integers(1, 64),
    st.tuples(st.integers(32, 256), st.integers(32, 512)),
    st.integers(1, 256),
    st.booleans(),
)
def test_locations_are_read_back(kind, subject, contrast, scanner, coils, matrix, slices, oversampled):
    anatomy, plane = kind
    matrix = (2 * matrix[0], matrix[1])
    scan = KspaceScan(anatomy, 2, subject, "no_tumour", contrast, scanner, plane, coils, matrix, slices, oversampled)
    assert is_kspace(scan.location)
    assert not is_volume(scan.location)
    assert parse_kspace(scan.location) == scan
    assert kspace_location(**vars(scan)) == scan.location
    assert len(scan.positions) == slices
    assert scan.thickness <= scan.spacing[2] + 1e-9


def test_acquisitions_are_named_as_in_fastmri():
    names = [KspaceScan("brain", contrast=contrast).acquisition for contrast in CONTRASTS]
    assert names == ["AXT1", "AXT1POST", "AXT2", "AXFLAIR", "AXPD"]
    assert [KspaceScan("knee", contrast=c).acquisition for c in ("pd", "pdfs")] == ["CORPD_FBK", "CORPDFS_FBK"]
    assert KspaceScan("knee", contrast="pd", plane="axial").acquisition == "KN-AXPD_FBK"


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("phantom:kspace=1&anatomy=nee", "'knee'"),
        ("phantom:kspace=1&anatomy=knee&lesion=glioma", "unknown lesion 'glioma'"),
        ("phantom:kspace=1&contrast=t1c", "'t1ce'"),
        ("phantom:kspace=1&scanner=z", "scanner"),
        ("phantom:kspace=1&plane=coronal", "plane of the brain"),
        ("phantom:kspace=1&coils=0", "coils: 0; must be between 1 and 64"),
        ("phantom:kspace=1&slices=0", "slices: 0"),
        ("phantom:kspace=1&matrix=256", "rows and columns such as 256x256"),
        ("phantom:kspace=1&matrix=16x64", "rows of matrix: 16"),
        ("phantom:kspace=1&matrix=64x1000", "columns of matrix: 1000"),
        ("phantom:kspace=1&matrix=65x64&oversampled=1", "must be even"),
        ("phantom:kspace=1&subject=x", "subject=x is not a whole number"),
        ("phantom:kspace=1&seed=-1", "0 or more"),
        ("phantom:kspace=1&colour=1", "unknown key 'colour'"),
    ],
)
def test_a_wrong_location_is_named_with_what_would_be_right(location, said):
    with pytest.raises(UserError, match=said):
        render_kspace(location)


@pytest.mark.real_data
def test_spectra_and_aliasing_are_those_of_real_kspace(real_data):
    shape = tuple(map(int, (real_data / "kspace/brain_8coil.hdr").read_text().split("\n")[1].split()[:4]))
    real = np.fromfile(real_data / "kspace/brain_8coil.cfl", np.complex64).reshape(shape, order="F")[0]
    real = real.transpose(2, 0, 1)
    scans = [KspaceScan("brain", 0, s, contrast="t1", scanner="b", matrix=(230, 180), slices=1) for s in (6, 7)]
    ours = [render_kspace(scan.location)[0] for scan in scans]
    mean = np.mean([spectrum(combined(kspace)) for kspace in ours], axis=0)
    assert np.abs(mean - spectrum(combined(real))).max() < 7  # dB, over a range of 30
    targets = [combined(kspace) for kspace in (real, *ours)]
    zero_filled = [combined(accelerated(kspace)) for kspace in (real, *ours)]
    aliased = [psnr(target, image) for target, image in zip(targets, zero_filled, strict=True)]
    assert np.abs(np.array(aliased[1:]) - aliased[0]).max() < 5


@pytest.mark.slow
def test_coils_phase_and_noise_cost_no_more_than_a_few_times_the_anatomy():
    scan = KspaceScan("brain", subject=900, matrix=(256, 256), slices=2)  # 0.3 s a slice where nothing else runs
    fine = scan.grid(scan.positions[1], (3, 512, 512))
    head_labels(0, 900, "no_tumour", fine)
    started = time.process_time()
    head_labels(0, 900, "no_tumour", fine)
    drawn = time.process_time() - started
    started = time.process_time()
    render_kspace(scan.location)
    assert (time.process_time() - started) / scan.slices < 6 * drawn
