"""The centre of an image, as fastMRI cuts it out."""

from typing import TypeVar

import numpy as np
from torch import Tensor

from mrtransfer.common.errors import UserError

Images = TypeVar("Images", Tensor, np.ndarray)


def center_crop(images: Images, size: tuple[int, int]) -> Images:
    """The central ``size`` = (h, w) of images (…, H, W), as a view; real or complex, tensor or array.

    Where H − h is odd, the extra row is cut at the bottom, the extra column on the right, as in fastMRI. Raises
    :class:`UserError` where ``size`` is larger than the images.
    """
    (height, width), (rows, columns) = size, images.shape[-2:]
    if not (0 < height <= rows and 0 < width <= columns):
        raise UserError(
            f"centre crop: {height} × {width} does not fit into an image of {rows} × {columns}; "
            "each side must be at least 1 and at most the image's"
        )
    top, left = (rows - height) // 2, (columns - width) // 2
    return images[..., top : top + height, left : left + width]
