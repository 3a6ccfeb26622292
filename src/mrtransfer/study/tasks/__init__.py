"""What each task adds to a study: how its data are read, trained on, scored and shown. One module per task."""

from importlib import import_module
from pathlib import Path
from types import MappingProxyType

from mrtransfer.study.recipe import Recipe
from mrtransfer.study.workshop import AnyWorkshop

WORKSHOPS = MappingProxyType(
    {
        "classification": "ClassificationWorkshop",
        "segmentation": "SegmentationWorkshop",
        "reconstruction": "ReconstructionWorkshop",
    }
)


def open_workshop(recipe: Recipe, folder: Path, device: str = "auto") -> AnyWorkshop:
    """The workshop of the recipe's task, with its domains read."""
    kind: type[AnyWorkshop] = getattr(import_module(f"{__name__}.{recipe.task}"), WORKSHOPS[recipe.task])
    return kind.open(recipe, folder, device)
