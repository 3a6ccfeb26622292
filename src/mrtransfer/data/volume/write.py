"""Writing volumes as NIfTI."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.common.files import write_bytes
from mrtransfer.data.volume.volume import Volume

_SCANNER = 1  # NIfTI's code for coordinates of the scanner
_LEVEL = 4  # of gzip; higher ones take three times as long for a few percent
_STORED = {np.dtype(bool): np.uint8, np.dtype(np.float16): np.float32}


def write_volume(path: str | Path, data: np.ndarray, like: Volume | np.ndarray) -> Path:
    """Write voxels (X, Y, Z) or maps (X, Y, Z, K) as ``.nii.gz`` (or ``.nii``), on the grid of ``like``.

    ``like`` is a volume or an affine (4, 4; voxels to RAS mm). The type is kept; bool becomes uint8, float16 float32,
    and 64-bit integers int32. The same voxels give the same bytes; the file is whole or absent.
    """
    path = Path(path)
    if not path.name.endswith((".nii.gz", ".nii")):
        raise UserError(f"{path}: a volume's name must end in .nii.gz or .nii")
    affine = np.asarray(like.affine if isinstance(like, Volume) else like, dtype=np.float64)
    if isinstance(like, Volume) and like.shape != data.shape[:3]:
        raise ValueError(f"voxels of shape {data.shape} do not fit the grid {like.shape}")
    image = nib.Nifti1Image(_storable(data), affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=_SCANNER)
    image.set_qform(affine, code=_SCANNER)
    qform = image.get_qform()
    if qform is None or not np.allclose(qform, affine, atol=1e-4):  # a qform cannot hold a sheared grid
        image.set_qform(None, code=0)
    content = image.to_bytes()
    write_bytes(path, gzip.compress(content, _LEVEL, mtime=0) if path.name.endswith(".gz") else content)
    return path


def _storable(data: np.ndarray) -> np.ndarray:
    if data.dtype in _STORED:
        return data.astype(_STORED[data.dtype])
    if data.dtype.kind in "iu" and data.dtype.itemsize == 8:  # few programs read 64-bit integers
        if np.abs(data).max(initial=0) > np.iinfo(np.int32).max:
            raise ValueError("the whole numbers do not fit 32 bits")
        return data.astype(np.int32)
    return data
