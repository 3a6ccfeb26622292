"""Slices of a domain as they look once simple preprocessing has brought them to a reference."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.common.files import digest
from mrtransfer.data.harmonised import in_groups, write_harmonised
from mrtransfer.data.harmoniser import FittedHarmoniser, Harmoniser
from mrtransfer.data.stored import Sources, open_or_build
from mrtransfer.shift.slices import Slices

FORMAT = 1  # raise it when the same slices would become others
_FILE = "slices.bin"


def fit_on_slices(harmoniser: Harmoniser, reference: Slices) -> FittedHarmoniser:
    """Learn from ``reference``; the slices of one sample count as one image."""
    return harmoniser.fit(in_groups(reference.images, np.arange(len(reference)), reference.samples))


def harmonised_slices(
    slices: Slices, harmoniser: Harmoniser | FittedHarmoniser, reference: Slices, directory: str | Path
) -> Slices:
    """``slices``, every sample brought to ``reference``; made once, kept in ``directory``, named by what defines them.

    Channel i becomes like channel i of ``reference``, whatever their names. Compare two domains after both were brought
    to one of them: harmonising narrows the differences within a domain too, so one alone would stand out. Raises
    :class:`UserError` where the two have different numbers of channels.
    """
    if slices.images.shape[1] != reference.images.shape[1]:
        raise UserError(
            f"{slices.name}: has {slices.images.shape[1]} channels ({', '.join(slices.channels)}), and the reference "
            f"{reference.name} has {reference.images.shape[1]} ({', '.join(reference.channels)}); give both the same "
            "number"
        )
    fitted = harmoniser if isinstance(harmoniser, FittedHarmoniser) else fit_on_slices(harmoniser, reference)
    groups = slices.samples.tolist()
    options = {"format": FORMAT, "pixels": slices.content, "harmonise": fitted.to_json(), "groups": digest(groups)}

    def build(folder: Path) -> dict[str, Any]:
        with open(folder / _FILE, "wb") as out:
            digests = write_harmonised(out, slices.images, fitted, groups)
        shape = list(slices.images.shape)
        return {"shape": shape, "row_digests": digests, "content": digest([digests, shape])}

    def opened(folder: Path, meta: dict[str, Any]) -> Slices | None:
        shape = tuple(meta["shape"])
        if (folder / _FILE).stat().st_size != slices.images.dtype.itemsize * int(np.prod(shape)):
            return None
        return replace(
            slices,
            images=np.memmap(folder / _FILE, slices.images.dtype, mode="r", shape=shape),
            content=meta["content"],
            row_digests=np.array(meta["row_digests"]),
        )

    sources = Sources(f"{slices.name}-harmonised", Path(directory), [], options)
    return open_or_build(sources, directory, opened, build)
