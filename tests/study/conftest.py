"""The tiny segmentation and reconstruction studies, finished once for all tests that look at them."""

import shutil
from pathlib import Path

import pytest
from tiny_reconstruction import TINY as TINY_RECONSTRUCTION
from tiny_segmentation import TINY, laid_out, one_run

from mrtransfer.study.execute import job_of
from mrtransfer.study.recipe import parse_recipe
from mrtransfer.study.run import Study


@pytest.fixture(scope="session")
def segmented(tmp_path_factory):
    """The finished study; whoever changes its folder takes ``copied``."""
    return Study.from_recipe(TINY).run(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="session")
def planned(segmented):
    """The finished study's plan and the tools of its folder."""
    return laid_out(parse_recipe(TINY), segmented.folder)


@pytest.fixture(scope="session")
def tuned(planned, tmp_path_factory):
    """The folder of a model that learned on the source, then on the target."""
    plan, workshop = planned
    run, folder = one_run(plan, "frozen"), tmp_path_factory.mktemp("tuned") / "model"
    workshop.make_model(run, job_of(run, workshop), folder, {})
    return folder


@pytest.fixture
def copied(segmented, tmp_path):
    """A copy of the finished study's folder that a test may change."""
    return Path(shutil.copytree(segmented.folder, tmp_path / "study"))


@pytest.fixture(scope="session")
def reconstructed(tmp_path_factory):
    """The finished tiny reconstruction study; whoever changes its folder copies it."""
    return Study.from_recipe(TINY_RECONSTRUCTION).run(tmp_path_factory.mktemp("reconstruction"))


@pytest.fixture(scope="session")
def reconstruction(reconstructed):
    """The plan of that study and the tools of its folder."""
    return laid_out(parse_recipe(TINY_RECONSTRUCTION), reconstructed.folder)
