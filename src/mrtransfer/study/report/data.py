"""What the report says of the data: samples per class and split, what masks hold, and the audit's findings."""

from typing import Any

from mrtransfer.study.statistics.words import count_of

_KINDS = {
    "byte_identical": "byte-identical files",
    "pixel_identical": "pixel-identical images",
    "near_identical": "near-identical images",
    "flipped": "mirror images",
}


def data_views(data: dict[str, Any] | None) -> list[dict[str, Any]]:
    """One description, or those of ``target`` and ``source``, as rows: one per class and one for the sum."""
    if not data:
        return []
    if "target" not in data:
        return [_view(data, None)]
    return [_view(data[role], f"{role.capitalize()} domain") for role in ("target", "source") if data.get(role)]


def _view(data: dict[str, Any], role: str | None) -> dict[str, Any]:
    """``Manifest.describe()``, or its like with ``classes`` as a list and ``counts`` by class, ready to print."""
    classes = data.get("classes") or {}
    if not isinstance(classes, dict):
        classes = {name: {"samples": data.get("counts", {}).get(name, 0)} for name in classes}
    splits = list(data.get("splits") or {}) if all("splits" in entry for entry in classes.values()) else []
    subjects = bool(data.get("subjects")) and all("subjects" in entry for entry in classes.values())
    rows = [
        {
            "class": name,
            "samples": f"{entry['samples']:,}",
            "subjects": f"{entry['subjects']:,}" if subjects else None,
            "splits": [f"{entry['splits'].get(split, 0):,}" for split in splits],
        }
        for name, entry in classes.items()
    ]
    total = {
        "samples": f"{data.get('samples', sum(entry['samples'] for entry in classes.values())):,}",
        "subjects": f"{data['subjects']:,}" if subjects else None,
        "splits": [f"{data['splits'][split]:,}" for split in splits],
    }
    facts = [
        f"{count_of(data['unlabelled'], 'sample')} without a label" if classes and data.get("unlabelled") else None,
        *_mask_facts(data),
        count_of(data["subjects"], "subject") if data.get("subjects") and not subjects else None,
        count_of(data["groups"], "cluster") + " of images that duplicate each other" if data.get("groups") else None,
        f"{data['units']:,} independent units (subjects and duplicates joined)" if data.get("units") else None,
        f"channels: {', '.join(data['channels'])}" if len(data.get("channels") or []) > 1 else None,
        f"scanners: {', '.join(data['scanners'])}" if data.get("scanners") else None,
    ]
    known = [fact for fact in facts if fact]
    notes = [f"{'; '.join(known)}."] if known else []
    return {
        "name": data.get("name", ""),
        "role": role,
        "rows": rows,
        "total": total,
        "splits": splits,
        "notes": [*notes, *data.get("notes", [])],
    }


def _mask_facts(data: dict[str, Any]) -> list[str]:
    """How many samples have masks and of what, and the regions that are scored where these are not just the classes."""
    if not data.get("masks") or not data.get("mask_classes"):
        return []
    structures, regions = data["mask_classes"][1:], data.get("mask_regions") or []
    known = [f"{count_of(data['masks'], 'mask')} of {', '.join(structures)}"]
    return known if list(regions) == list(structures) else [*known, f"scored regions: {', '.join(regions)}"]


def audit_view(audit: dict[str, Any] | None) -> dict[str, Any] | None:
    """The audit's JSON as counts of duplicates, findings in words, and the leak's effect both ways."""
    if not audit:
        return None
    kinds = [
        {
            "name": label,
            "clusters": f"{audit[key].get('clusters', 0):,}",
            "files": f"{audit[key].get('files', 0):,}",
            "leaked": audit[key].get("test_in_train"),
        }
        for key, label in _KINDS.items()
        if isinstance(audit.get(key), dict)
    ]
    neighbour = audit.get("nearest_neighbour") or {}
    scores = {part: _score(neighbour.get(part)) for part in ("published", "leaked", "clean")}
    return {
        "findings": list(audit.get("findings") or []),
        "kinds": kinds,
        "leaks": any(kind["leaked"] for kind in kinds),
        "conflicts": _size(audit.get("label_conflicts")),
        "scores": scores if scores["published"] is not None else None,
    }


def _score(value: Any) -> str | None:
    """An accuracy given as a number, or inside a dictionary."""
    if isinstance(value, dict):
        value = value.get("accuracy", value.get("score"))
    return None if value is None else f"{100 * float(value):.1f}"


def _size(value: Any) -> int:
    if isinstance(value, dict):
        value = value.get("clusters", len(value))
    return len(value) if isinstance(value, list) else int(value or 0)
