"""How far apart a study's source and target are: the same comparison as the command ``shift`` makes."""

from pathlib import Path
from typing import Any

from mrtransfer.shift.analysis import compare_manifests
from mrtransfer.shift.report import save_figures
from mrtransfer.study.recipe import Recipe
from mrtransfer.study.workshop import AnyWorkshop

FOLDER = "shift"
"""Below the study's folder: coordinates and thumbnails of the maps, figures, and what is computed once."""


def shift_of(workshop: AnyWorkshop, recipe: Recipe) -> dict[str, Any] | None:
    """The entry ``shift`` of the results: see :func:`~mrtransfer.shift.analysis.compare_domains`.

    None where the recipe has no ``shift:``, or no source to compare the target with. All samples of both domains are
    looked at, also those that are tested: no label is used, and nothing that is trained depends on it.
    """
    if recipe.shift is None or workshop.source is None:
        return None
    folder = Path(workshop.folder) / FOLDER
    results = compare_manifests(workshop.source.manifest, workshop.target.manifest, recipe.shift, folder)
    save_figures(folder, results)
    return results
