"""A user's own folders of volumes: one pattern per channel, and one for the mask."""

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from mrtransfer.common.errors import UserError
from mrtransfer.data.datasets import DATASETS
from mrtransfer.data.datasets._cases import Classes, Regions, complete, found_labels
from mrtransfer.data.datasets._common import existing_folder, is_hidden
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.mask_labels import MaskLabels

OPTIONS = "channels: {flair: '*/FLAIR.nii.gz', t1: '*/T1.nii.gz'} and mask: '*/lesions.nii.gz'"
EXPECTED = f"your volumes, and {OPTIONS}"
_SUBJECT, _MASK = "subject", "mask"
_TAKEN = ("sample", "image", "mask")  # columns that have another meaning
_TOKEN = re.compile(r"\{(\w+)\}|(\*\*/?)|(\*)|(\?)|(\[[^]]*\])")


@DATASETS.register("volumes")
def volumes(
    path: str | Path | None = None,
    *,
    channels: Mapping[str, str] | None = None,
    mask: str | None = None,
    classes: Classes | None = None,
    regions: Regions | None = None,
    subject: str | None = None,
    missing: str = "refuse",
) -> Manifest:
    """Your own volumes (NIfTI files or DICOM series folders): a pattern per channel, and one for the mask.

    Patterns are relative to ``path``: ``channels: {flair: "*/FLAIR.nii.gz", t1: "*/T1*.nii.gz"}``. What the first
    ``*`` matches is the subject; ``{subject}`` marks another part, and further names tell apart several scans of one,
    as in ``sub-{subject}/ses-{session}/flair.nii.gz``. ``subject``, a regular expression on the case's name, makes the
    subject of it (its first group). A case that lacks a channel or its mask is refused by name, or left out with
    ``missing: exclude``. ``classes`` maps names to mask values (``{lesion: 1}``), by default what is found in the
    masks; ``regions`` are scored, {name: [classes]}. Without ``mask``, the set has no masks.
    """
    root = existing_folder("volumes", path, EXPECTED)
    if not isinstance(channels, Mapping) or not channels:
        raise UserError(f"dataset volumes: channels is {channels!r}; give patterns as in {OPTIONS}")
    patterns = {str(name): str(pattern) for name, pattern in channels.items()}
    if mask is not None:
        patterns[_MASK] = str(mask)
    fields = _same_fields(patterns)
    cases = _cases(root, patterns, fields)
    names, notes = complete(cases, list(patterns), missing, root)
    keys = [tuple(name.split("/")) for name in names]
    table = pd.DataFrame({"sample": names, _SUBJECT: _subjects(names, keys, subject)})
    for number, field in enumerate(fields[1:], start=1):
        table[field] = [key[number] for key in keys]
    for part in patterns:
        column = part if part == _MASK else f"image:{part}"
        table[column] = [_within(cases[name][part], root) for name in names]
    labels = MaskLabels.create(classes, regions) if classes is not None else None
    if mask is not None and labels is None:
        labels, note = found_labels(table["mask"], root, regions)
        notes.append(note)
    return Manifest.create(table, root, str(root.resolve().name), (), notes, where=root, mask_labels=labels)


def _cases(root: Path, patterns: Mapping[str, str], fields: tuple[str, ...]) -> dict[str, dict[str, Path]]:
    """Case to its file, or folder, for every pattern."""
    cases: dict[str, dict[str, Path]] = {}
    for part, pattern in patterns.items():
        found = _matches(root, pattern, fields)
        if not found:
            there = ", ".join(sorted(child.name for child in root.iterdir() if not is_hidden(child.name))[:5])
            raise UserError(
                f"{root}: nothing matches {part}: {pattern!r} (the folder holds {there or 'nothing'}); "
                "patterns are relative to it"
            )
        for key, file in found:
            parts = cases.setdefault("/".join(key), {})
            if part in parts:
                both = f"{_within(parts[part], root)} and {_within(file, root)}"
                raise UserError(
                    f"{root}: {part}: {pattern!r} matches two files of {'/'.join(key)}, {both}; "
                    "narrow it, or name what tells them apart, as {session}"
                )
            parts[part] = file
    return dict(sorted(cases.items()))


def _within(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix()


def _same_fields(patterns: Mapping[str, str]) -> tuple[str, ...]:
    """The names that mark the parts of a case, the subject first, which all patterns must have."""
    found = {}
    for part, pattern in patterns.items():
        named = list(dict.fromkeys(re.findall(r"\{(\w+)\}", pattern)))
        if pattern.startswith("/") or (not named and "*" not in pattern):
            raise UserError(
                f"dataset volumes: {part} is {pattern!r}; it must be relative to path, with a * or {{subject}} for the "
                "part that names a case"
            )
        if named and (_SUBJECT not in named or any(name in _TAKEN for name in named)):
            raise UserError(
                f"dataset volumes: {part} is {pattern!r}; it must hold {{subject}}, and none of {', '.join(_TAKEN)}"
            )
        found[part] = (_SUBJECT, *sorted(name for name in named if name != _SUBJECT))
    first = next(iter(found))
    for part, fields in found.items():
        if fields != found[first]:
            raise UserError(
                f"dataset volumes: {first} and {part} name different parts ({', '.join(found[first])} and "
                f"{', '.join(fields)}); all patterns must name the same"
            )
    return found[first]


def _matches(root: Path, pattern: str, fields: tuple[str, ...]) -> list[tuple[tuple[str, ...], Path]]:
    """(what marks the case, file or folder) of everything that fits the pattern."""
    expression = re.compile(_expression(pattern))
    found = []
    for file in sorted(root.glob(re.sub(r"\{\w+\}", "*", pattern))):
        inside = file.relative_to(root)
        match = expression.fullmatch(inside.as_posix())
        if match and not any(is_hidden(part) for part in inside.parts):
            found.append((tuple(match[field] for field in fields), file))
    return found


def _expression(pattern: str) -> str:
    """The pattern as a regular expression with a group per name; without names, the first * is the subject."""
    marked: set[str] = set()
    unnamed = not re.search(r"\{\w+\}", pattern)
    parts, end = [], 0
    for token in _TOKEN.finditer(pattern):
        parts.append(re.escape(pattern[end : token.start()]))
        end = token.end()
        name, deep, star, one, choice = token.groups()
        if name is None and (star or deep) and unnamed and _SUBJECT not in marked:
            name, deep = _SUBJECT, None
        if name in marked:
            parts.append(f"(?P={name})")
        elif name:
            marked.add(name)
            parts.append(f"(?P<{name}>[^/]+)")
        elif deep:
            parts.append("(?:.*/)?" if deep.endswith("/") else ".*")
        else:
            parts.append("[^/]*" if star else "[^/]" if one else choice.replace("[!", "[^"))
    return "".join(parts) + re.escape(pattern[end:])


def _subjects(names: list[str], keys: list[tuple[str, ...]], pattern: str | None) -> list[str]:
    if pattern is None:
        return [key[0] for key in keys]
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"subject: {pattern!r} is not a regular expression ({error})") from error
    subjects = []
    for name in names:
        match = compiled.search(name)
        if match is None:
            raise UserError(f"subject: {pattern!r} does not match the case {name!r}; widen the expression")
        subjects.append(match[1] if compiled.groups else match[0])
    return subjects
