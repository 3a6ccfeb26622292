"""The audit in plain sentences, worst first."""

from typing import Any

from mrtransfer.data.manifest import Manifest


def findings(data: dict[str, Any], manifest: Manifest, gone: list[str]) -> list[str]:
    """Sentences about ``data`` (the audit's JSON). ``gone`` are classes with no clean test sample left."""
    sentences = [*_unreadable(data), *_leaks(data, gone), *_copies(data), *_memory(data, manifest), *_forms(data)]
    return sentences or [f"{data['files']} images: no copies, no conflicts, no leaks and no shortcuts found."]


def percent(part: float, whole: float = 1.0) -> str:
    """A share as text: "64 %"."""
    return f"{100 * part / whole:.0f} %"


def many(count: int, thing: str, things: str | None = None) -> str:
    """A count with its noun: "1 image", "2 images"."""
    return f"{count} {thing if count == 1 else things or thing + 's'}"


def _unreadable(data: dict[str, Any]) -> list[str]:
    problems = data["unreadable"]
    if not problems:
        return []
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return [f"{many(len(problems), 'file')} cannot be read: {next(iter(problems.values()))}{more}."]


def _leaks(data: dict[str, Any], gone: list[str]) -> list[str]:
    sentences = []
    tested, leaked = data["splits"].get("test", 0), data["leaked"]
    if leaked:
        kinds = [(data["pixel_identical"]["test_in_train"], "pixel for pixel")]
        kinds.append((data["byte_identical"]["test_in_train"], "byte for byte"))
        exact = ", ".join(f"{count} {how}" for count, how in kinds if count)
        sentences.append(
            f"{leaked} of {tested} published test images ({percent(leaked, tested)}) are also in training"
            f"{f' ({exact})' if exact else ''}; any score on this split is void."
        )
        if gone:
            sentences.append(f"Without them, no test image of {', '.join(gone)} is left.")
    both = data["subjects_on_both_sides"]
    if both:
        verb = "is" if both == 1 else "are"
        sentences.append(
            f"{many(both, 'subject')} {verb} both in training and in test; any score on this split is void."
        )
    return sentences


def _copies(data: dict[str, Any]) -> list[str]:
    sentences = []
    near, flipped = data["near_identical"], data["flipped"]
    if near["clusters"]:
        pixel, byte = data["pixel_identical"]["files"], data["byte_identical"]["files"]
        sentences.append(
            f"{near['files']} of {data['files']} images ({percent(near['files'], data['files'])}) have a copy in the "
            f"dataset: {near['clusters']} clusters; {pixel} are copies pixel for pixel, {byte} byte for byte."
        )
    if flipped["files"]:
        sentences.append(f"{flipped['files']} images are mirror images (left to right) of one another.")
    if data["label_conflicts"]:
        example = data["label_conflict_examples"][0]
        shown = " and ".join(
            f"{s} ({label})" for s, label in list(zip(example["samples"], example["labels"], strict=True))[:2]
        )
        sentences.append(
            f"{many(data['label_conflicts'], 'cluster')} of copies "
            f"{'carries' if data['label_conflicts'] == 1 else 'carry'} different labels, for example {shown}."
        )
    if data["images_of_several_subjects"]:
        count = data["images_of_several_subjects"]
        sentences.append(f"{many(count, 'image')} {'is' if count == 1 else 'are'} filed under more than one subject.")
    return sentences


def _memory(data: dict[str, Any], manifest: Manifest) -> list[str]:
    sentences = []
    scores = data["nearest_neighbour"]
    if scores["published"] is not None and data["leaked"]:
        clean = f", {percent(scores['clean'])} on the clean rest" if scores["clean"] is not None else ""
        sentences.append(
            f"Memory alone (nearest neighbour on 32×32 pixels) scores {percent(scores['published'])} on the published "
            f"test set: {percent(scores['leaked'])} on the leaked images{clean}."
        )
    if data["subjects"] == 0 and len(manifest.classes) > 1:
        sentence = "No subject is named, so slices of one patient cannot be kept on one side of a split"
        if scores["other_units"] is not None:
            sentence += (
                f"; the nearest neighbour outside an image's own copies has the same label in "
                f"{percent(scores['other_units'])} of cases, so scores of any split by image are likely too high"
            )
        sentences.append(sentence + ".")
    return sentences


def _forms(data: dict[str, Any]) -> list[str]:
    sentences = []
    kinds = (
        ("label", "label", "a network can learn these instead of the anatomy"),
        ("split", "side of the published split", "its two sides do not come from the same source"),
    )
    for target, told, meaning in kinds:
        found = data["shortcuts"].get(target)
        if found and found["p"] <= 0.01 and found["balanced_accuracy"] >= found["chance"] + 0.1:
            strongest = [name.replace("_", " ") for name in list(found["features"])[:3]]
            sentences.append(
                f"Size, aspect, border and file type alone tell the {told} with "
                f"{percent(found['balanced_accuracy'])} balanced accuracy (chance {percent(found['chance'])}), "
                f"most of all {', '.join(strongest)}; {meaning}."
            )
    return sentences
