"""The recipe: a YAML file that describes a study, checked in full before anything runs."""

from mrtransfer.study.recipe.base import ArmSpec, Recipe
from mrtransfer.study.recipe.classification import ClassificationArm, ClassificationRecipe, InputSpec
from mrtransfer.study.recipe.load import bundled_recipes, load_recipe, parse_recipe
from mrtransfer.study.recipe.specs import Budget, DatasetSpec, NetworkSpec, SourceSpec, SplitSpec, TargetSpec

__all__ = [
    "ArmSpec",
    "Budget",
    "ClassificationArm",
    "ClassificationRecipe",
    "DatasetSpec",
    "InputSpec",
    "NetworkSpec",
    "Recipe",
    "SourceSpec",
    "SplitSpec",
    "TargetSpec",
    "bundled_recipes",
    "load_recipe",
    "parse_recipe",
]
