"""What the README and the documentation say is what the program does."""

import inspect
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from mrtransfer.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "docs" / "using.md",
    ROOT / "docs" / "recipe.md",
    ROOT / "docs" / "architecture.md",
    ROOT / "docs" / "results.md",
]
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
MAKE_TARGET = re.compile(r"^([a-z-]+):", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block: the page it stands on, its language, the words behind it, its text."""

    page: str
    language: str
    marks: tuple[str, ...]
    text: str


def blocks(language: str) -> list[Block]:
    return [
        Block(page.name, found[1], tuple(found[2].split()), found[3])
        for page in PAGES
        for found in FENCE.finditer(page.read_text(encoding="utf-8"))
        if found[1] == language
    ]


def commands(mark: str | None = None) -> list[list[str]]:
    """The arguments of every ``mrtransfer`` command in the pages, or of those in blocks with this mark or none."""
    lines = [
        shlex.split(line, comments=True)
        for block in blocks("bash")
        if mark is None or mark in (block.marks or ("",))
        for line in block.text.splitlines()
    ]
    return [line[1:] for line in lines if line and line[0] == "mrtransfer"]


def quick_commands() -> list[list[str]]:
    return [line for line in commands("") if line[0] not in ("demo", "predict") and ">" not in line]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder as the pages have it: class folders of small images in ``scans``, one of them there twice."""
    generator = np.random.default_rng(0)
    for label in ("glioma", "meningioma", "no_tumor"):
        (tmp_path / "scans" / label).mkdir(parents=True)
        for number in range(6):
            pixels = generator.integers(0, 255, (8, 8), dtype=np.uint8)
            picture = Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC)
            picture.save(tmp_path / "scans" / label / f"p{number // 2}{label[0]}_{number}.png")
    monkeypatch.chdir(tmp_path)
    printed = CliRunner().invoke(app, ["study", "demo", "--dry-run"])
    (tmp_path / "mine.yaml").write_text(printed.stdout, encoding="utf-8")
    return tmp_path


@pytest.fixture
def registries():
    """What a snippet registers is forgotten again."""
    from mrtransfer.data.datasets import DATASETS
    from mrtransfer.shift.features import FEATURES
    from mrtransfer.transfer.methods import METHODS

    before = {registry: registry.names() for registry in (DATASETS, METHODS, FEATURES)}
    yield
    for registry, names in before.items():
        for name in set(registry.names()) - set(names):
            del registry._loaded[name]


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_every_command_and_option_in_the_pages_exists(arguments):
    group = typer.main.get_command(app)
    while arguments and hasattr(group, "commands"):
        assert arguments[0] in group.commands
        group, name, arguments = group.commands[arguments[0]], arguments[0], arguments[1:]
        if ">" in arguments:
            arguments = arguments[: arguments.index(">")]
    group.make_context(name, list(arguments))


@pytest.mark.parametrize("arguments", quick_commands(), ids=" ".join)
def test_commands_in_the_pages_run(arguments, workplace):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output


def test_a_printed_recipe_is_a_recipe(workplace):
    again = CliRunner().invoke(app, ["study", "mine.yaml", "--dry-run"])
    assert again.exit_code == 0, again.output
    assert again.stdout == (workplace / "mine.yaml").read_text(encoding="utf-8")


def test_make_targets_named_in_the_readme_exist():
    targets = set(MAKE_TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8")))
    named = set(re.findall(r"^make ([a-z-]+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "test"} <= named <= targets


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: block.page)
def test_recipes_in_the_pages_are_valid(block):
    import yaml

    from mrtransfer.study.recipe import parse_recipe

    recipe = parse_recipe(yaml.safe_load(block.text), where=block.page)
    assert recipe.question


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_examples_are_valid_and_the_pages_tell_of_them(path):
    from mrtransfer.study.recipe import load_recipe

    recipe = load_recipe(path, ["target.path=scans"])
    assert recipe.question
    assert any(path.name in page.read_text(encoding="utf-8") for page in PAGES)


@pytest.mark.parametrize("block", [b for b in blocks("python") if not b.marks], ids=lambda block: block.page)
def test_python_in_the_pages_runs(block, workplace, registries):
    exec(compile(block.text, block.page, "exec"), {"__name__": "snippet"})


def test_links_between_the_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#][^)]*)\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target}"


def test_the_recipe_reference_names_every_field():
    from mrtransfer.augment.image import Augment
    from mrtransfer.augment.kspace import MRAugment
    from mrtransfer.augment.volume import VolumeAugment
    from mrtransfer.data.cases.plan import SegmentationPlan
    from mrtransfer.data.datasets import DATASETS
    from mrtransfer.data.harmonise import HARMONISERS
    from mrtransfer.models.reconstructors import RECONSTRUCTORS
    from mrtransfer.models.segmentation import segmenter_options
    from mrtransfer.models.segmenters import SEGMENTERS
    from mrtransfer.physics.masks import KINDS, Sampling
    from mrtransfer.shift.distances import DISTANCES
    from mrtransfer.shift.features import FEATURES
    from mrtransfer.shift.settings import ShiftSettings
    from mrtransfer.study import recipe
    from mrtransfer.study.recipe.reconstruction import ReconstructionRecipe
    from mrtransfer.study.recipe.segmentation import InferenceSpec, SegmentationRecipe
    from mrtransfer.transfer.methods import METHODS

    named = set(re.findall(r"[a-z0-9_*]+", " ".join(re.findall(r"`([^`\n]+)`", (ROOT / "docs/recipe.md").read_text()))))
    models = [recipe.Recipe, recipe.TargetSpec, recipe.SourceSpec, recipe.SplitSpec, recipe.InputSpec, recipe.ArmSpec]
    models += [recipe.ClassificationArm, SegmentationRecipe, SegmentationPlan, InferenceSpec, Augment, VolumeAugment]
    fields = {field for model in models for field in model.model_fields}
    for registry in (METHODS, FEATURES, DISTANCES, HARMONISERS):
        fields |= {field for name in registry.names() for field in registry.get(name).model_fields} | set(
            registry.names()
        )
    for model in (MRAugment, Sampling, ReconstructionRecipe, ShiftSettings):
        fields |= set(model.model_fields)
    fields |= set(DATASETS.names()) | set(SEGMENTERS.names()) | set(RECONSTRUCTORS.names()) | set(KINDS)
    for name in RECONSTRUCTORS.names():
        fields |= set(inspect.signature(RECONSTRUCTORS.get(name)).parameters)
    fields |= {option for name in SEGMENTERS.names() for option in segmenter_options(SEGMENTERS.get(name))}
    for name in DATASETS.names():
        fields |= set(inspect.signature(DATASETS.get(name)).parameters)
    assert sorted(fields - named) == []


def test_the_architecture_page_shows_every_room():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = [path.name for path in (ROOT / "src" / "mrtransfer").iterdir() if (path / "__init__.py").is_file()]
    assert [room for room in rooms if f"`{room}/`" not in page] == []


@pytest.mark.slow
def test_the_demo_ends_with_a_verdict_a_report_and_a_model_that_predicts(tmp_path, monkeypatch):
    """The readme's first command, then the tutorial's last ones."""
    monkeypatch.chdir(tmp_path)
    finished = CliRunner().invoke(app, ["demo"])
    assert finished.exit_code == 0, finished.output
    assert "report" in finished.stdout.splitlines()[-2]
    for name in ("report.html", "results.json", "results.csv", "model/model.json"):
        assert (tmp_path / "demo" / name).is_file(), name
    picture = tmp_path / "scan.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (80, 60), dtype=np.uint8)).save(picture)
    predicted = CliRunner().invoke(app, ["predict", "demo", "scan.png", "-o", "predictions.csv"])
    assert predicted.exit_code == 0, predicted.output
    assert (tmp_path / "predictions.csv").read_text().startswith("image,predicted,")
