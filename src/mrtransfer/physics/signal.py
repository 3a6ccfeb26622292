"""Signal equations: how bright a tissue is, from its T1, T2 and proton density and the sequence's timing.

All times are in milliseconds; arguments broadcast as in NumPy. Signals are relative to the proton density ``pd``
(magnetisation at rest = ``pd``) and are what a perfect receiver would measure, before coil, noise and resolution.

Source of all equations: Brown, Cheng, Haacke, Thompson, Venkatesan: *Magnetic Resonance Imaging: Physical Principles
and Sequence Design*, 2nd ed., Wiley 2014, chapters 8 (spin echo, inversion recovery) and 18 (spoiled gradient echo).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Signal = NDArray[np.float64]


def spin_echo(pd: ArrayLike, t1: ArrayLike, t2: ArrayLike, *, tr: float, te: float) -> Signal:
    """Spin echo with a 90° excitation, repeated every ``tr``, read at ``te`` (te ≪ tr).

    S = pd · (1 − exp(−tr/t1)) · exp(−te/t2)
    """
    pd, t1, t2 = _arrays(pd, t1, t2)
    return pd * (1 - np.exp(-tr / t1)) * np.exp(-te / t2)


def gradient_echo(pd: ArrayLike, t1: ArrayLike, t2_star: ArrayLike, *, tr: float, te: float, flip: float) -> Signal:
    """Spoiled gradient echo in the steady state (the Ernst equation), ``flip`` in degrees.

    S = pd · sin α · (1 − E1) / (1 − cos α · E1) · exp(−te/t2*),  E1 = exp(−tr/t1)
    """
    pd, t1, t2_star = _arrays(pd, t1, t2_star)
    angle = np.deg2rad(flip)
    e1 = np.exp(-tr / t1)
    return pd * np.sin(angle) * (1 - e1) / (1 - np.cos(angle) * e1) * np.exp(-te / t2_star)


def inversion_recovery(
    pd: ArrayLike, t1: ArrayLike, t2: ArrayLike, *, tr: float, te: float, ti: float, signed: bool = False
) -> Signal:
    """Inversion-recovery spin echo: an inversion ``ti`` before the excitation; FLAIR where ``ti`` nulls the CSF.

    S = pd · (1 − 2 exp(−ti/t1) + exp(−tr/t1)) · exp(−te/t2), its magnitude unless ``signed``.
    """
    pd, t1, t2 = _arrays(pd, t1, t2)
    signal = pd * (1 - 2 * np.exp(-ti / t1) + np.exp(-tr / t1)) * np.exp(-te / t2)
    return signal if signed else np.abs(signal)


def ernst_angle(t1: ArrayLike, *, tr: float) -> Signal:
    """The flip angle (degrees) at which :func:`gradient_echo` is brightest: arccos(exp(−tr/t1))."""
    return np.rad2deg(np.arccos(np.exp(-tr / np.asarray(t1, dtype=np.float64))))


def null_inversion_time(t1: ArrayLike, *, tr: float) -> Signal:
    """The ``ti`` at which :func:`inversion_recovery` is zero: t1 · (ln 2 − ln(1 + exp(−tr/t1)))."""
    t1 = np.asarray(t1, dtype=np.float64)
    return t1 * (np.log(2) - np.log1p(np.exp(-tr / t1)))


def relaxation_with_agent(time: ArrayLike, *, relaxivity: float, concentration: ArrayLike) -> Signal:
    """T1 or T2 (ms) in the presence of a contrast agent: 1/T' = 1/T + r · C.

    ``relaxivity`` r in 1/(s·mM), ``concentration`` C in mM.
    """
    time = np.asarray(time, dtype=np.float64)
    return 1 / (1 / time + relaxivity * np.asarray(concentration, dtype=np.float64) / 1000)


def _arrays(*values: ArrayLike) -> tuple[Signal, ...]:
    return tuple(np.asarray(value, dtype=np.float64) for value in values)
