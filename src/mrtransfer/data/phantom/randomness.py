"""Random streams: every draw is a function of the seed, the subject and what is drawn."""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What a generator is for; streams do not share draws, so adding one changes none of the others."""

    CLASS = 0
    HEAD = 1
    FOLDS = 2
    LESION = 3
    TISSUE = 4
    SLICES = 5
    INCIDENTAL = 6
    ACQUISITION = 7
    SPLIT = 8
    KNEE = 9
    VOLUME = 10
    KSPACE = 11


def generator(seed: int, stream: Stream, *keys: int) -> np.random.Generator:
    """An independent generator for ``stream``; ``keys`` are whole numbers from 0, as the subject's."""
    return np.random.default_rng([seed, int(stream), *keys])
