"""What a segmentation study is made of beside volumes of phantoms: slices, pictures, and published scans."""

import shutil

import numpy as np
import pytest
from PIL import Image
from tiny_segmentation import laid_out

from mrtransfer.data.cases.fingerprint import fingerprint
from mrtransfer.data.cases.plan import make_plan
from mrtransfer.data.cases.store import open_cases
from mrtransfer.models.package import load_model
from mrtransfer.study.outcome import load_kept, load_scores
from mrtransfer.study.recipe import DatasetSpec, load_recipe, parse_recipe
from mrtransfer.study.run import Study
from mrtransfer.study.tasks.volumes import open_volumes
from mrtransfer.study.tasks.whole_cases import kept_mask

FLAT = {
    "name": "flat",
    "question": "Does it run on slices?",
    "task": "segmentation",
    "target": {"dataset": "lgg", "split": {"test": 0.5, "validation": 0.3}},
    "shared": {"network": {"name": "unet", "encoder": "resnet18", "depth": 3, "decoder": [16, 8, 4]}},
    "plan": {"batch": 4},
    "arms": {"scratch": {"method": {"name": "scratch", "epochs": 1}}},
    "inference": {"clean": "none"},
    "resamples": 200,
    "precision": "float32",
}


class TestSlices:
    @pytest.fixture(scope="class")
    def slices(self, tmp_path_factory):
        """6 subjects of 3 slices with a disc, brighter than the noise around it; on some slices it is absent."""
        root = tmp_path_factory.mktemp("scans") / "kaggle_3m"
        random = np.random.default_rng(0)
        x, y = np.mgrid[:40, :36]
        for number in range(18):
            subject = f"TCGA_CS_{4940 + number // 3}_19960909"
            mask = np.hypot(x - 12 - number % 7, y - 15) < (0 if number % 3 == 2 else 4 + number % 4)
            pixels = random.integers(20, 120, (40, 36, 3)) + 100 * mask[..., None]
            name = root / subject / f"{subject}_{number % 3 + 1}"
            name.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(f"{name}.tif")
            Image.fromarray((255 * mask).astype(np.uint8)).save(f"{name}_mask.tif")
        return root

    @pytest.fixture(scope="class")
    def finished(self, slices, tmp_path_factory):
        target = {**FLAT["target"], "path": str(slices)}
        return Study.from_recipe({**FLAT, "target": target}).run(tmp_path_factory.mktemp("flat"))

    def test_slices_are_scored_pooled_by_subject(self, finished):
        plan, workshop = laid_out(load_recipe(finished.folder / "recipe.yaml"), finished.folder)
        (run,) = plan.runs
        assert workshop.plans.plan(workshop.target, 0, None).dims == 2
        assert len(run.test) == 9
        kept, scores = load_kept(workshop.folder, run.key), load_scores(workshop.folder, run.key, "test")
        assert scores.rows.tolist() == run.test[::3].tolist()
        for first, value in zip(scores.rows, scores.values[:, workshop.measures.names.index("dice")], strict=True):
            own = range(first, first + 3)
            predicted = np.stack([kept_mask(kept, row)[..., 0] > 0 for row in own])
            files = [workshop.target.manifest.root / workshop.target.manifest.table["mask"].iloc[row] for row in own]
            reference = np.stack([np.asarray(Image.open(file)) > 0 for file in files])
            assert value == pytest.approx(2 * (predicted & reference).sum() / (predicted.sum() + reference.sum()))
        assert finished.results["design"]["units"] == 3
        assert not any("/" in name for name in finished.results["arms"][0]["metrics"])  # one region

    def test_pictures_are_audited_and_shown_flat(self, finished):
        page = finished.report.read_text()
        assert "What the audit found" in page
        assert "Channels from left to right: red, green, blue." in page
        assert "Region by region" not in page

    def test_the_model_is_one_for_pictures(self, finished):
        model = load_model(finished.model)
        assert model.spec["plan"]["normalise"] == ["uint8"] * 3
        assert model.network.dims == 2
        assert model.network.encoder_prefix == "encoder.model."


def test_phantom_slices_are_cases_of_one_subject(tmp_path):
    target = {
        "dataset": "phantom", "task": "segmentation", "contrast": ["t1", "t2"], "subjects": 4, "slices": 2, "size": 32,
        "split": {"test": 0.5, "validation": 0.3},
    }  # fmt: skip
    recipe = parse_recipe({**FLAT, "target": target, "plan": {}, "shared": {"network": "residual_unet"}})
    plan, workshop = laid_out(recipe, tmp_path)
    own = workshop.plans.plan(workshop.target, 0, None)
    assert (own.dims, own.patch) == (2, (32, 32, 1))
    assert len(workshop.target.manifest) == 8
    assert len(np.unique(workshop.target.units)) == 4
    for run in plan.runs:
        assert not set(workshop.target.units[run.test]) & set(workshop.target.units[run.drawn.train])
    store = workshop.store(workshop.target, 0, recipe.arms["scratch"])
    assert store.channels == ("t1", "t2")
    assert all(store.image(row).shape == (2, 32, 32, 1) for row in range(8))


@pytest.mark.real_data
class TestRealData:
    """Published scans come in with their classes, their plan and their pixels."""

    def prepared(self, folder, spec):
        domain = open_volumes(DatasetSpec.model_validate(spec), folder, ("subject", "cluster"))
        rows = np.arange(len(domain.manifest))
        plan = make_plan(fingerprint(domain.manifest, rows, cache=folder))
        store = open_cases(domain.manifest, plan, folder / "cases")
        for row in rows.tolist():
            assert store.image(row).shape[1:] == store.mask(row).shape
            assert store.frame(row).shape == domain.reference(row).shape
        return domain, plan, store

    def test_lgg(self, real_data, tmp_path):
        chosen = sorted(path for path in (real_data / "lgg_segmentation").iterdir() if path.is_dir())[:3]
        for path in chosen:
            shutil.copytree(path, tmp_path / "lgg" / path.name)
        domain, plan, store = self.prepared(tmp_path, {"dataset": "lgg", "path": str(tmp_path / "lgg")})
        assert domain.mask_labels.region_names == ("tumour",)
        assert domain.audit is not None
        assert len(np.unique(domain.units)) == 3
        assert (plan.dims, plan.patch, plan.normalise, plan.spacing) == (2, (256, 256, 1), ("uint8",) * 3, None)
        assert store.channels == ("red", "green", "blue")

    def test_hippocampus(self, real_data, tmp_path):
        root = tmp_path / "Task04"
        for name in ("imagesTr", "labelsTr"):
            (root / name).mkdir(parents=True)
            for path in sorted((real_data / "decathlon_hippocampus" / name).glob("*.nii.gz"))[:6]:
                shutil.copy(path, root / name)
        domain, plan, store = self.prepared(tmp_path, {"dataset": "decathlon", "path": str(root)})
        assert domain.mask_labels.region_names == ("label_1", "label_2")
        assert (plan.dims, plan.spacing, plan.crop) == (3, (1.0, 1.0, 1.0), "none")
        assert set(plan.class_frequencies) == {"background", "label_1", "label_2"}
        assert all((store.foreground(row, 2)).size for row in range(6))

    def test_brats(self, real_data, tmp_path):
        spec = {"dataset": "brats", "path": str(real_data / "brats2021"), "channels": ["flair", "t1ce"]}
        domain, plan, store = self.prepared(tmp_path, spec)
        assert domain.mask_labels.region_names == ("whole tumour", "tumour core", "enhancing tumour")
        assert (plan.crop, plan.normalise) == ("nonzero", ("zscore_nonzero",) * 2)
        assert store.shapes.prod() < 240 * 240 * 155
        assert np.bincount(store.mask(0).ravel())[1:].tolist() == np.bincount(domain.reference(0).ravel())[1:].tolist()

    def test_open_ms(self, real_data, tmp_path):
        spec = {
            "dataset": "volumes", "path": str(real_data / "open_ms"), "mask": "*/GOLD_STANDARD*",
            "channels": {"flair": "*/FLAIR_*"}, "classes": {"lesion": 1},
        }  # fmt: skip
        domain, plan, store = self.prepared(tmp_path, spec)
        assert domain.subjects.tolist() == ["open_ms:patient07", "open_ms:patient19"]
        assert (plan.dims, plan.spacing) == (3, (1.0, 1.0, 1.0))
        assert store.labelled.all()
