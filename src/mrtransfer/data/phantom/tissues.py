"""Tissues of the phantom: T1, T2 and proton density, their change with field strength, and uptake of contrast agent.

Values are at 1.5 T. Normal tissue: T1 of grey matter, white matter and CSF within what Rooney et al., Magn Reson Med
57:308 (2007), and Stanisz et al., Magn Reson Med 54:507 (2005), report, exponents of the field dependence from the
former, T2 within one standard deviation of the latter; proton density, fat, muscle, skin after BrainWeb (Kwan, Evans,
Pike, IEEE Trans Med Imaging 18:1085, 1999). Adenoma and normal pituitary: Pasztor et al., J Comput Assist Tomogr 11:378
(1987). Cartilage and joint fluid: Gold et al., AJR Am J Roentgenol 183:343 (2004). Other lesions: representative values
within the wide and overlapping ranges of in vivo studies (Kjaer et al., Acta Radiol 32:498, 1991, who find that
relaxation times alone do not tell tumours apart), so classes here do not differ by brightness alone either. How much
agent a tissue takes up is chosen for a clinical look.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from mrtransfer.physics.signal import relaxation_with_agent

# Gd-DTPA in plasma at 37 °C, 1.5 T (Rohrer et al., Invest Radiol 40:715, 2005), in 1/(s·mM).
R1_GADOLINIUM = 4.1
R2_GADOLINIUM = 4.6


class Tissue(IntEnum):
    """Labels of the anatomy: head, lesions, knee."""

    AIR = 0
    SKIN = 1
    FAT = 2
    BONE = 3
    MARROW = 4
    MUSCLE = 5
    CSF = 6
    GREY = 7
    WHITE = 8
    DEEP_GREY = 9
    BLOOD = 10
    DURA = 11
    CHOROID = 12
    PITUITARY_GLAND = 13
    EYE = 14
    GLIOSIS = 15
    CYST = 16
    OEDEMA = 17
    GLIOMA = 18
    GLIOMA_RIM = 19
    NECROSIS = 20
    MENINGIOMA = 21
    CALCIFICATION = 22
    ADENOMA = 23
    ADENOMA_CYST = 24
    CARTILAGE = 25
    MENISCUS = 26
    TENDON = 27
    JOINT_FLUID = 28
    FATTY_MARROW = 29


N_TISSUES = len(Tissue)
BRAIN = (Tissue.GREY, Tissue.WHITE, Tissue.DEEP_GREY)
CORE = tuple(tissue for tissue in Tissue if Tissue.GLIOMA <= tissue <= Tissue.ADENOMA_CYST)
WHOLE = (Tissue.OEDEMA, *CORE)

# t1 ms, t2 ms, proton density, exponent of T1 against field, agent taken up (mM), spread between subjects, grain
_TABLE: dict[Tissue, tuple[float, float, float, float, float, float, float]] = {
    Tissue.AIR: (1000, 100, 0.0, 0.0, 0.0, 0.0, 0.0),
    Tissue.SKIN: (900, 45, 0.70, 0.35, 0.05, 0.10, 0.10),
    Tissue.FAT: (350, 70, 0.90, 0.10, 0.0, 0.05, 0.10),
    Tissue.BONE: (900, 5, 0.10, 0.0, 0.0, 0.0, 0.0),
    Tissue.MARROW: (420, 55, 0.45, 0.15, 0.0, 0.20, 0.25),
    Tissue.MUSCLE: (900, 47, 0.90, 0.40, 0.05, 0.08, 0.15),
    Tissue.CSF: (4329, 1500, 1.0, 0.0, 0.0, 0.02, 0.0),
    Tissue.GREY: (1100, 88, 0.86, 0.376, 0.012, 0.04, 0.04),
    Tissue.WHITE: (656, 74, 0.76, 0.382, 0.005, 0.04, 0.02),
    Tissue.DEEP_GREY: (930, 80, 0.83, 0.376, 0.010, 0.04, 0.03),
    Tissue.BLOOD: (1441, 12, 0.85, 0.30, 0.80, 0.10, 0.0),  # short T2: the flow void of spin echoes
    Tissue.DURA: (1000, 40, 0.55, 0.35, 0.25, 0.20, 0.0),
    Tissue.CHOROID: (1200, 120, 0.90, 0.35, 0.40, 0.15, 0.2),
    Tissue.PITUITARY_GLAND: (830, 76, 0.86, 0.35, 0.35, 0.08, 0.05),
    Tissue.EYE: (3500, 900, 1.0, 0.0, 0.0, 0.05, 0.0),
    Tissue.GLIOSIS: (1250, 150, 0.86, 0.35, 0.0, 0.15, 0.08),
    Tissue.CYST: (3900, 1200, 1.0, 0.0, 0.0, 0.10, 0.0),
    Tissue.OEDEMA: (1300, 165, 0.86, 0.35, 0.0, 0.10, 0.05),
    Tissue.GLIOMA: (1400, 165, 0.88, 0.35, 0.02, 0.15, 0.14),
    Tissue.GLIOMA_RIM: (1250, 135, 0.86, 0.35, 0.35, 0.14, 0.14),
    Tissue.NECROSIS: (2300, 300, 0.93, 0.20, 0.02, 0.15, 0.10),
    Tissue.MENINGIOMA: (1150, 115, 0.84, 0.35, 0.38, 0.12, 0.05),
    Tissue.CALCIFICATION: (900, 25, 0.40, 0.20, 0.10, 0.15, 0.10),
    Tissue.ADENOMA: (1170, 123, 0.86, 0.35, 0.28, 0.12, 0.06),
    Tissue.ADENOMA_CYST: (2200, 350, 0.94, 0.20, 0.03, 0.15, 0.05),
    Tissue.CARTILAGE: (1060, 42, 0.80, 0.22, 0.01, 0.08, 0.06),
    Tissue.MENISCUS: (900, 12, 0.60, 0.20, 0.02, 0.10, 0.08),
    Tissue.TENDON: (700, 5, 0.50, 0.20, 0.02, 0.10, 0.10),
    Tissue.JOINT_FLUID: (2850, 1210, 1.0, 0.345, 0.02, 0.05, 0.0),
    Tissue.FATTY_MARROW: (330, 75, 0.85, 0.12, 0.01, 0.06, 0.08),
}
_COLUMNS = np.array([_TABLE[tissue] for tissue in Tissue], dtype=np.float64).T
_T1, _T2, _PD, _EXPONENT, _UPTAKE, _SPREAD, GRAIN = _COLUMNS


@dataclass(frozen=True)
class Relaxation:
    """T1 (ms), T2 (ms) and proton density by label, each (tissues,)."""

    t1: NDArray[np.float64]
    t2: NDArray[np.float64]
    pd: NDArray[np.float64]


def relaxation(field: float, *, agent: bool = False, generator: np.random.Generator | None = None) -> Relaxation:
    """One subject's tissue properties at ``field`` tesla, after a contrast agent where ``agent``.

    T1 grows as field^exponent (Rooney et al. 2007); T2 hardly changes between 1.5 and 3 T (Stanisz et al. 2005).
    ``generator`` draws this subject's deviations; without it, the table's values. The draws do not depend on ``field``
    or ``agent``: the same generator state gives the same subject on every scanner.
    """
    draws = np.zeros((4, N_TISSUES)) if generator is None else _draws(generator)
    t1 = _T1 * (field / 1.5) ** _EXPONENT * np.exp(_SPREAD * draws[0])
    t2 = _T2 * np.exp(_SPREAD * draws[1])
    pd = _PD * np.exp(0.02 * draws[2])
    if agent:
        uptake = _UPTAKE * np.exp(0.45 * draws[3])
        t1 = relaxation_with_agent(t1, relaxivity=R1_GADOLINIUM, concentration=uptake)
        t2 = relaxation_with_agent(t2, relaxivity=R2_GADOLINIUM, concentration=uptake)
    return Relaxation(t1, t2, np.minimum(pd, 1.0))


def _draws(generator: np.random.Generator) -> NDArray[np.float64]:
    """(4, tissues) deviations; the knee's tissues have draws of their own, so that heads are what they were before."""
    head, knee = Tissue.CARTILAGE, N_TISSUES - Tissue.CARTILAGE
    draws = np.concatenate([generator.standard_normal((4, head)), generator.standard_normal((4, knee))], axis=1)
    return np.clip(draws, -2, 2)
