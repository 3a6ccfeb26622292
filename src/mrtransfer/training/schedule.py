"""Learning-rate schedules: what all rates are multiplied with, as a pure function of the step."""

import math

from mrtransfer.transfer.method import Schedule

WARM_UP = 0.1
"""Share of all steps in which ``cosine`` rises; a head that came from a probe is not thrown off by the first steps."""


def rate_factor(schedule: Schedule, step: int, steps: int) -> float:
    """The factor, in 0..1, at ``step`` (from 0) of ``steps`` in all.

    ``cosine``: a linear rise, then half a cosine down to zero (Loshchilov & Hutter 2017, eq. 5, without restarts).
    """
    if schedule == "constant":
        return 1.0
    rise = math.ceil(WARM_UP * steps)
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1)))
