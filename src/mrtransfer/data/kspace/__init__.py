"""K-space: acquisitions in fastMRI's, ISMRMRD's, BART's and NumPy's files, read by slice; written as fastMRI's."""

from mrtransfer.data.kspace.checks import check_same_matrix, needs_coils, needs_targets
from mrtransfer.data.kspace.open import open_volume
from mrtransfer.data.kspace.store import KspaceStore, open_kspace
from mrtransfer.data.kspace.volume import KspaceSlice, KspaceVolume
from mrtransfer.data.kspace.write import write_fastmri

__all__ = [
    "KspaceSlice",
    "KspaceStore",
    "KspaceVolume",
    "check_same_matrix",
    "needs_coils",
    "needs_targets",
    "open_kspace",
    "open_volume",
    "write_fastmri",
]
