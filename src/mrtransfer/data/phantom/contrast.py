"""Contrasts: which sequence, with which timing, before or after the contrast agent."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrtransfer.data.phantom.tissues import Relaxation
from mrtransfer.physics.signal import gradient_echo, inversion_recovery, spin_echo

CONTRASTS = ("t1", "t1ce", "t2", "flair", "pd")
AFTER_AGENT = frozenset({"t1ce"})


@dataclass(frozen=True)
class SpinEcho:
    """A (turbo) spin echo; times in ms, ``te`` the effective one."""

    tr: float
    te: float

    def signal(self, tissue: Relaxation) -> NDArray[np.float64]:
        """Signal by label, (tissues,)."""
        return spin_echo(tissue.pd, tissue.t1, tissue.t2, tr=self.tr, te=self.te)


@dataclass(frozen=True)
class GradientEcho:
    """A spoiled gradient echo; times in ms, ``flip`` in degrees."""

    tr: float
    te: float
    flip: float

    def signal(self, tissue: Relaxation) -> NDArray[np.float64]:
        """Signal by label, (tissues,); T2* is taken as half of T2, and as no more than BrainWeb's 58 ms of CSF."""
        t2_star = np.minimum(tissue.t2 / 2, 58.0)
        return gradient_echo(tissue.pd, tissue.t1, t2_star, tr=self.tr, te=self.te, flip=self.flip)


@dataclass(frozen=True)
class InversionRecovery:
    """An inversion-recovery turbo spin echo (FLAIR); times in ms."""

    tr: float
    te: float
    ti: float

    def signal(self, tissue: Relaxation) -> NDArray[np.float64]:
        """Signal by label, (tissues,)."""
        return inversion_recovery(tissue.pd, tissue.t1, tissue.t2, tr=self.tr, te=self.te, ti=self.ti)


Sequence = SpinEcho | GradientEcho | InversionRecovery
