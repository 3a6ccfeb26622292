"""What the datasets that read folders share."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from mrtransfer.common.errors import UserError
from mrtransfer.data.manifest import Manifest
from mrtransfer.data.readers import SUFFIXES, suffix

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def existing_folder(dataset: str, path: str | Path | None, expected: str) -> Path:
    """``path`` as a folder that is there; ``expected`` says what should lie in it."""
    if path is None:
        raise UserError(f"dataset {dataset} needs a path: the folder with {expected}")
    folder = Path(path)
    if not folder.exists():
        raise UserError(f"{folder}: no such folder; dataset {dataset} needs the folder with {expected}")
    if not folder.is_dir():
        raise UserError(f"{folder}: is a file; dataset {dataset} needs the folder with {expected}")
    return folder


def visible_folders(folder: Path) -> list[Path]:
    """The subfolders that a user put there, sorted by name."""
    found = (child for child in folder.iterdir() if child.is_dir() and not is_hidden(child.name))
    return sorted(found, key=lambda child: child.name)


def visible_files(folder: Path) -> list[Path]:
    """All files below ``folder``, sorted by path, without the hidden ones that operating systems leave behind."""
    found = [path for path in folder.rglob("*") if not any(is_hidden(part) for part in path.relative_to(folder).parts)]
    return sorted(path for path in found if path.is_file())


def is_image(path: Path) -> bool:
    """Whether a reader knows files of this name."""
    return suffix(path) in SUFFIXES


def stem(path: Path) -> str:
    """The file's name without its suffix, ``.nii.gz`` being one suffix."""
    return path.name[: len(path.name) - len(suffix(path))]


def ignored(files: Iterable[Path]) -> list[str]:
    """A sentence on files that are no images, or none where there are none."""
    kinds = Counter(path.suffix.lower() or path.name for path in files)
    if not kinds:
        return []
    counted = ", ".join(f"{count} × {kind}" for kind, count in sorted(kinds.items()))
    return [f"{kinds.total()} other file{'s' if kinds.total() > 1 else ''} ignored ({counted})"]


def require_one_label_per_subject(manifest: Manifest, where: Path) -> Manifest:
    """``manifest`` itself; raises :class:`UserError` that names ``where`` if a subject has samples of two labels."""
    known = manifest.table[["subject", "label"]].dropna()
    counts = known.groupby("subject")["label"].nunique()
    twice = counts[counts > 1]
    if len(twice):
        subject = twice.index[0]
        labels = " and ".join(sorted(known.loc[known["subject"] == subject, "label"].unique()))
        raise UserError(
            f"{where}: subject {subject} is labelled {labels} ({len(twice)} such subjects in all); "
            "mend the labels, or allow it with one_label_per_subject: false"
        )
    return manifest


def is_hidden(name: str) -> bool:
    """Whether an operating system left a file or folder of this name behind."""
    return name.startswith(".") or name == "__MACOSX"
