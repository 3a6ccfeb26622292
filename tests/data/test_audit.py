"""The audit finds planted copies exactly, calls nothing else a copy, and says what they do to a split."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter, shift
from typer.testing import CliRunner

from mrtransfer.cli.data import app
from mrtransfer.common.errors import UserError
from mrtransfer.data.audit import audit
from mrtransfer.data.audit.neighbours import nearest
from mrtransfer.data.audit.shortcuts import shortcuts
from mrtransfer.data.audit.similarity import agreement, candidates, hashes, reduced
from mrtransfer.data.datasets.folder import folder
from mrtransfer.data.manifest import Manifest

CLASSES = ("glioma", "none")


def head(seed, height=170, width=150):
    """A made-up head: a bright rim around tissue of random texture; uint8 (H, W), unlike any other seed's."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    radius = np.hypot(y / 0.85 + rng.normal(0, 0.02), x / 0.7 + rng.normal(0, 0.02))
    texture = sum(gaussian_filter(rng.standard_normal((height, width)), s) * s for s in (2, 4, 8))
    values = np.where(radius < 0.9, 110 + 130 * texture, np.where(radius < 1, 210, 4)) + rng.normal(0, 3, radius.shape)
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def save(image, root, name, **options):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """40 different images in two classes, all in training, and 10 more in test."""
    root = tmp_path_factory.mktemp("heads")
    for k in range(50):
        side = "Training" if k < 40 else "Testing"
        save(head(k), root, f"{side}/{CLASSES[k % 2]}/{k:02d}.jpg", quality=92)
    return root


@pytest.fixture(scope="module")
def planted(originals, tmp_path_factory):
    """The originals, and copies of known kind in the test set."""
    root = tmp_path_factory.mktemp("planted") / "planted"
    shutil.copytree(originals, root)
    first = {k: root / f"Training/{CLASSES[k % 2]}/{k:02d}.jpg" for k in range(40)}
    test = {c: root / "Testing" / c for c in CLASSES}
    shutil.copy(first[0], test["glioma"] / "bytes.jpg")
    shutil.copy(first[1], test["none"] / "bytes.jpg")
    save(Image.open(first[2]), test["glioma"], "pixels.png")
    save(Image.open(first[4]).convert("RGB"), test["glioma"], "colour.png")
    save(Image.open(first[6]), test["glioma"], "reencoded.jpg", quality=35)
    image = Image.open(first[8])
    save(
        image.resize((image.width * 2 // 3, image.height * 2 // 3), Image.Resampling.LANCZOS),
        test["glioma"],
        "small.jpg",
    )
    save(Image.open(first[10]).resize((300, 300)), test["glioma"], "square.png")
    save(Image.open(first[12]).transpose(Image.Transpose.FLIP_LEFT_RIGHT), test["glioma"], "mirror.png")
    save(Image.open(first[13]).transpose(Image.Transpose.FLIP_LEFT_RIGHT), test["none"], "mirror.jpg", quality=60)
    save(Image.open(first[14]), test["none"], "conflict.jpg", quality=50)
    return root


@pytest.fixture(scope="module")
def report(planted):
    return audit(folder(planted))


@pytest.fixture
def changeable(planted, tmp_path):
    """A copy of the planted set that a test may damage."""
    return Path(shutil.copytree(planted, tmp_path / "planted"))


def test_different_images_are_no_copies_of_each_other(originals):
    data = audit(folder(originals)).to_json()
    for kind in ("byte_identical", "pixel_identical", "near_identical", "flipped"):
        assert data[kind] == {"clusters": 0, "files": 0, "test_in_train": 0}
    assert data["leaked"] == data["label_conflicts"] == 0
    assert data["files"] == 50


def test_planted_copies_are_found_exactly_each_in_its_class(report):
    data = report.to_json()
    assert data["byte_identical"] == {"clusters": 2, "files": 4, "test_in_train": 2}
    assert data["pixel_identical"] == {"clusters": 4, "files": 8, "test_in_train": 4}
    assert data["near_identical"] == {"clusters": 8, "files": 16, "test_in_train": 8}
    assert data["flipped"] == {"clusters": 2, "files": 4, "test_in_train": 2}
    assert data["leaked"] == 10
    assert data["label_conflicts"] == 1
    (conflict,) = data["label_conflict_examples"]
    assert conflict["samples"] == ["Testing/none/conflict.jpg", "Training/glioma/14.jpg"]
    assert data["findings"][0].startswith("10 of 20 published test images (50 %) are also in training")


def test_groups_join_every_copy_with_its_original_and_nothing_else(planted, report):
    manifest = folder(planted)
    named = pd.Series(report.groups, index=manifest.table["sample"])
    clusters = named[named != ""].groupby(named).apply(lambda rows: {Path(name).stem for name in rows.index})
    originals = {"bytes": {"00", "01"}, "mirror": {"12", "13"}}
    expected = [{"pixels", "02"}, {"colour", "04"}, {"reencoded", "06"}, {"small", "08"}, {"square", "10"}]
    expected += [{"conflict", "14"}, *({"bytes", k} for k in originals["bytes"])]
    expected += [{"mirror", k} for k in originals["mirror"]]
    assert sorted(map(sorted, clusters)) == sorted(map(sorted, expected))
    assert manifest.with_groups(named.to_numpy()).table["group"].nunique() == 10


def test_the_worst_pairs_come_first_and_can_be_saved_as_pictures(report, tmp_path):
    assert len(report.pairs) == 10
    assert report.pairs[0].conflicting
    assert all(pair.crossing for pair in report.pairs)
    paths = report.save_pictures(tmp_path / "pictures", limit=3)
    assert len(paths) == 3
    assert paths[0].name == "001-near_identical.png"
    assert all(Image.open(path).width == 960 for path in paths)


def test_memory_is_scored_on_the_leaked_and_the_clean_part(report):
    scores = report.to_json()["nearest_neighbour"]
    assert scores["tested"] == {"published": 20, "leaked": 10, "clean": 10}
    assert scores["published"] == pytest.approx((10 * scores["leaked"] + 10 * scores["clean"]) / 20)
    assert scores["leaked"] > scores["clean"]


def test_without_a_published_split_nothing_is_said_about_leaks(originals):
    data = audit(folder(originals / "Training")).to_json()
    assert data["near_identical"]["test_in_train"] is None
    assert data["leaked"] is None
    assert data["subjects_on_both_sides"] is None
    assert [data["nearest_neighbour"][part] for part in ("published", "leaked", "clean")] == [None] * 3


def table_of(root, images, **columns):
    """A manifest of images that are written as PNG; subjects, splits and labels by column."""
    locations = [save(image, root, f"{k}.png").name for k, image in enumerate(images)]
    table = pd.DataFrame({"sample": locations, "image": locations, **columns})
    return Manifest.create(table, root, "table")


def test_subjects_on_both_sides_and_images_of_several_subjects_are_counted(tmp_path):
    images = [head(k) for k in (0, 1, 2, 3, 0)]
    manifest = table_of(
        tmp_path,
        images,
        subject=["a", "b", "a", "c", "d"],
        split=["train", "train", "test", "test", "train"],
        label=list("xyxyx"),
    )
    data = audit(manifest).to_json()
    assert data["subjects_on_both_sides"] == 1
    assert data["images_of_several_subjects"] == 1
    assert data["pixel_identical"] == {"clusters": 1, "files": 2, "test_in_train": 0}
    assert any("1 subject is both in training and in test" in sentence for sentence in data["findings"])


def test_slices_of_one_subject_that_look_alike_are_no_copies_but_those_of_two_subjects_are(tmp_path):
    image = head(0)
    alike = Image.fromarray(np.clip(np.asarray(image) * 0.9 + 6, 0, 255).astype(np.uint8))
    for subjects, clusters in ((["a", "a", "b"], 0), (["a", "c", "b"], 1)):
        manifest = table_of(tmp_path / "".join(subjects), [image, alike, head(1)], subject=subjects)
        assert audit(manifest).to_json()["near_identical"]["clusters"] == clusters


def test_files_that_cannot_be_read_are_reported_and_the_rest_is_audited(changeable):
    (changeable / "Training/glioma/00.jpg").write_bytes(b"no image")
    data = audit(folder(changeable)).to_json()
    assert list(data["unreadable"]) == ["Training/glioma/00.jpg"]
    assert "00.jpg" in data["findings"][0]
    assert data["byte_identical"]["clusters"] == 1


def test_a_dataset_of_which_nothing_can_be_read_is_refused(tmp_path):
    for name in CLASSES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_text("text")
    with pytest.raises(UserError, match=r"a\.png"):
        audit(folder(tmp_path))


def test_the_cached_report_is_the_report_until_a_file_changes(changeable, tmp_path):
    first = audit(folder(changeable), cache=tmp_path / "cache")
    again = audit(folder(changeable), cache=tmp_path / "cache")
    assert again.data == first.data
    assert again.pairs == first.pairs
    assert again.groups.tolist() == first.groups.tolist()
    assert len(list((tmp_path / "cache").iterdir())) == 1
    (changeable / "Testing/glioma/bytes.jpg").unlink()
    changed = audit(folder(changeable), cache=tmp_path / "cache")
    assert changed.data["byte_identical"]["clusters"] == 1


def test_agreement_sees_through_shift_stretch_and_contrast_but_not_other_images():
    pictures = np.stack([np.asarray(head(k).resize((96, 96)), dtype=np.float32) for k in range(4)])
    moved = np.stack([shift(p, (1.5, -2.0), order=1, mode="nearest") * 0.5 + 40 for p in pictures])
    i = np.arange(4)
    assert agreement(pictures, moved, i, i).min() > 0.95
    assert agreement(pictures, pictures, i, np.roll(i, 1)).max() < 0.8
    assert agreement(pictures, np.zeros_like(pictures), i, i).tolist() == [0] * 4


def test_candidates_are_all_pairs_within_the_distance():
    a = np.where(np.random.default_rng(0).random((60, 63)) > 0.5, 1.0, -1.0).astype(np.float32)
    i, j = candidates(a, a, distance=25)
    slow = {(p, q) for p in range(60) for q in range(p + 1, 60) if (a[p] != a[q]).sum() <= 25}
    assert set(zip(i.tolist(), j.tolist(), strict=True)) == slow


def test_the_hash_of_the_mirror_image_needs_no_mirror_image():
    pictures = np.random.default_rng(0).random((5, 96, 96)).astype(np.float32)
    assert np.array_equal(hashes(pictures, mirrored=True), hashes(pictures[:, :, ::-1]))


def test_reduction_keeps_constants_and_agrees_with_pillow():
    picture = np.asarray(head(3).resize((96, 96)), dtype=np.float32)
    pillow = np.asarray(Image.fromarray(picture).resize((64, 64), Image.Resampling.BILINEAR))
    assert np.allclose(reduced(picture[None], 64)[0], pillow, atol=0.01)
    assert np.allclose(reduced(np.full((1, 96, 96), 7, np.float32), 32), 7)


def test_nearest_agrees_with_the_slow_loop():
    rng = np.random.default_rng(0)
    queries, others, unit = rng.random((30, 5)), rng.random((40, 5)), rng.integers(0, 8, 40)
    slow = [int(np.argmin([np.sum((q - o) ** 2) for o in others])) for q in queries]
    assert nearest(queries, others).tolist() == slow
    own = [
        min((j for j in range(40) if unit[j] != unit[i]), key=lambda j, i=i: np.sum((others[i] - others[j]) ** 2))
        for i in range(40)
    ]
    assert nearest(others, others, unit).tolist() == own


def test_a_label_told_by_size_is_a_shortcut_and_one_that_is_not_is_none():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 200)
    form = pd.DataFrame({"width": 100.0 + 50 * label, "aspect": rng.random(200), "file_type": [".jpg"] * 200})
    found = shortcuts(
        form, {"label": label, "other": rng.integers(0, 2, 200), "one": np.zeros(200, int)}, np.arange(200)
    )
    assert found["label"]["balanced_accuracy"] == 1
    assert found["label"]["p"] <= 0.01
    assert next(iter(found["label"]["features"])) == "width"
    assert found["label"]["features"]["width"]["cramers_v"] == pytest.approx(1, abs=0.01)
    assert "file_type" not in found["label"]["features"]
    assert found["other"]["p"] > 0.01
    assert found["one"] is None


def test_the_command_prints_json_writes_the_table_and_pictures(planted, tmp_path):
    table, pictures = tmp_path / "clean.csv", tmp_path / "pairs"
    result = CliRunner().invoke(
        app, ["audit", str(planted), "--json", "--write", str(table), "--pictures", str(pictures)]
    )
    assert result.exit_code == 0
    assert json.loads(result.stdout)["near_identical"]["test_in_train"] == 8
    assert Manifest.load(table).table["group"].nunique() == 10
    assert len(list(pictures.iterdir())) == 10


def test_the_command_shows_findings_and_describes(planted):
    shown = CliRunner().invoke(app, ["audit", str(planted)]).stdout
    assert "any score on this split is void" in shown
    assert "flipped" in shown
    described = json.loads(CliRunner().invoke(app, ["describe", str(planted), "--json"]).stdout)
    assert described["splits"] == {"train": 40, "test": 20}
    assert "none" in CliRunner().invoke(app, ["describe", str(planted)]).stdout


def test_the_split_command_keeps_copies_together(planted, tmp_path):
    path = tmp_path / "split.csv"
    result = CliRunner().invoke(app, ["split", str(planted), "--folds", "4", "--write", str(path), "--json"])
    assert result.exit_code == 0
    shown = json.loads(result.stdout)
    assert shown["units"] == 50
    assert sum(fold["test"]["samples"] for fold in shown["folds"]) == 60
    written = Manifest.load(path).table
    assert (written.dropna(subset=["group"]).groupby("group")["fold"].nunique() == 1).all()
    assert set(written["published_split"]) == {"train", "test"}
    held_out = CliRunner().invoke(app, ["split", str(path), "--test", "0.2", "--write", str(path)])
    assert held_out.exit_code == 0
    assert set(Manifest.load(path).table["split"]) == {"train", "test"}


def test_mistakes_on_the_command_line_are_refused(planted):
    run = CliRunner().invoke
    assert isinstance(run(app, ["split", str(planted), "--folds", "3", "--test", "0.2"]).exception, UserError)
    assert isinstance(run(app, ["split", str(planted), "--by", "subjct"]).exception, UserError)
    assert isinstance(run(app, ["audit", str(planted), "--write", "table.txt"]).exception, UserError)
    assert isinstance(run(app, ["audit"]).exception, UserError)


@pytest.mark.slow
@pytest.mark.real_data
def test_the_public_four_class_set_leaks_as_published(real_data):
    data = audit(folder(real_data / "brain_tumour_4class")).to_json()
    assert data["files"] == 1659
    leaks = [data[kind]["test_in_train"] for kind in ("byte_identical", "pixel_identical", "near_identical")]
    assert leaks == [56, 151, 159]
    assert data["near_identical"]["files"] == 409
    assert data["label_conflicts"] == 2
    assert data["flipped"]["files"] == 0
    scores = data["nearest_neighbour"]
    assert scores["leaked"] > 0.95
    assert scores["clean"] < 0.45


@pytest.mark.real_data
def test_copies_planted_among_real_slices_are_found_exactly(real_data, tmp_path):
    """Neighbouring slices of the same patients are among them, and are not taken for copies."""
    source = real_data / "brain_tumour_4class" / "Training" / "glioma_tumor"
    files = sorted(source.glob("gg (6*).jpg"))[:40]
    for k, path in enumerate(files):
        image = Image.open(path).convert("L")
        (tmp_path / "Training" / "a").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "Training" / "a" / path.name)
        if k % 4 == 0:
            save(image.resize((256, 256)), tmp_path, f"Testing/a/{k}-resized.jpg", quality=80)
        if k % 4 == 1:
            save(image, tmp_path, f"Testing/a/{k}-reencoded.jpg", quality=30)
        if k % 4 == 2:
            save(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), tmp_path, f"Testing/a/{k}-mirror.jpg", quality=80)
    save(head(0), tmp_path, "Training/b/head.png")
    data = audit(folder(tmp_path)).to_json()
    assert data["near_identical"] == {"clusters": 20, "files": 40, "test_in_train": 20}
    assert data["flipped"] == {"clusters": 10, "files": 20, "test_in_train": 10}
