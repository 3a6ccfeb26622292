"""The centre of an image is the one that fastMRI cuts out."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mrtransfer.common.errors import UserError
from mrtransfer.tasks.reconstruction.crop import center_crop


@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_as_much_is_cut_on_either_side_and_an_odd_one_at_the_end(rows, columns, data):
    size = data.draw(st.integers(1, rows)), data.draw(st.integers(1, columns))
    places = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"))
    cropped = center_crop(places, size)
    assert cropped.shape == (2, *size)
    for axis, whole in enumerate((rows, columns)):
        before = int(cropped[axis].min())
        behind = whole - 1 - int(cropped[axis].max())
        assert behind - before in (0, 1)


def test_the_centre_of_even_sizes_stays_the_centre():
    image = np.zeros((3, 640, 372), dtype=np.complex64)
    image[:, 320, 186] = 1j
    cropped = center_crop(image, (320, 320))
    assert cropped[0, 160, 160] == 1j
    assert np.abs(cropped).sum() == 3


def test_the_crop_is_a_view_and_works_on_arrays_as_on_tensors():
    images = torch.rand(2, 9, 8)
    cropped = center_crop(images, (4, 5))
    assert cropped.data_ptr() == images[0, 2, 1:].data_ptr()
    np.testing.assert_array_equal(center_crop(images.numpy(), (4, 5)), cropped.numpy())


@pytest.mark.parametrize("size", [(11, 8), (10, 9), (0, 4), (4, -1)])
def test_what_does_not_fit_is_refused(size):
    with pytest.raises(UserError, match=f"{size[0]} × {size[1]} does not fit into an image of 10 × 8; each side must"):
        center_crop(torch.zeros(10, 8), size)


def test_the_crop_is_that_of_the_fastmri_package():
    transforms = pytest.importorskip("fastmri.data.transforms", exc_type=ImportError)
    images = torch.rand(2, 15, 12)
    for size in [(15, 12), (8, 5), (7, 12), (1, 1)]:
        assert torch.equal(center_crop(images, size), transforms.center_crop(images, size))
