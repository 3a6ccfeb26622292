"""What the report shows of localisation: the arms in numbers, and hits and misses of the best one in pictures."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import binary_erosion

from mrtransfer.study.outcome import load_kept
from mrtransfer.study.plan import Plan
from mrtransfer.study.report import tables
from mrtransfer.study.report.context import HeatPicture
from mrtransfer.study.tasks.localisation import CAM_ROWS, CAMS, MAIN, MEASURES, ROWS, SCORES, answers
from mrtransfer.tasks.localisation.boxes import Box, find_in_heat
from mrtransfer.tasks.localisation.gradcam import heat_maps
from mrtransfer.tasks.localisation.pictures import overlay
from mrtransfer.tasks.localisation.scores import LOCALISATION_METRICS, WORDS
from mrtransfer.tasks.segmentation.pictures import REFERENCE

if TYPE_CHECKING:
    from mrtransfer.study.tasks.classification import ClassificationWorkshop

_SIDE = 224  # pixels of a picture, at least
_GAP = 6
_LINE = 2


def localisation_view(found: Mapping[str, Any] | None, order: Sequence[str]) -> dict[str, Any] | None:
    """The results' ``localisation`` ready to print; ``order``: the study's arms, whose signs the tables show."""
    if not found:
        return None
    view: dict[str, Any] = {"rule": found["rule"], "notes": found["notes"], "design": found["design"]}
    view |= {"table": None, "comparisons": [], "uninformed": {}}
    if not found["arms"]:
        return view
    (table,) = tables.arm_tables(dict(found), MEASURES)
    table["metrics"].append({"name": "map", "unit": "places"})
    for row in table["rows"]:
        row["index"] = order.index(row["arm"])
        grid = " × ".join(map(str, found["grids"][row["arm"]]))
        row["cells"].append({"mean": grid, "interval": "", "best": False})
    compared = [{**entry, "primary": False} for entry in found["comparisons"]]
    return view | {
        "table": table,
        "comparisons": tables.other_comparisons({**found, "comparisons": compared}, MEASURES),
        "uninformed": {name: MEASURES.score(value, name) for name, value in found["uninformed"].items()},
    }


def heat_pictures(workshop: "ClassificationWorkshop", plan: Plan) -> tuple[str | None, list[HeatPicture]]:
    """The arm with the best pointing game, and of its first seed the best, median and worst hits and misses.

    They are ordered by the IoU of the boxes, and as far as there are so many, of different subjects.
    """
    outcomes, _, _ = answers(workshop, plan)
    means: dict[str, list[np.ndarray]] = {}
    for outcome in outcomes:
        means.setdefault(outcome.arm, []).append(outcome.values[:, LOCALISATION_METRICS.index(MAIN)])
    if not any(len(values) for several in means.values() for values in several):
        return None, []
    best = max(means, key=lambda arm: float(np.concatenate(means[arm]).mean()))
    rows, scores, cams = _kept(workshop, plan, best)
    hit = scores[:, LOCALISATION_METRICS.index(MAIN)] > 0
    overlap = scores[:, LOCALISATION_METRICS.index("box_iou")]
    pictures = []
    for group in (hit, ~hit):
        order = np.flatnonzero(group)[np.argsort(-overlap[group], kind="stable")]
        for place, at in _spread(order, workshop.target.units[rows]):
            pictures.append(_picture(workshop, int(rows[at]), cams[at], scores[at], place))
    return best, pictures


def _kept(workshop: "ClassificationWorkshop", plan: Plan, arm: str) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Rows, scores (n, M) and Grad-CAMs of the images whose Grad-CAM is kept, over all folds."""
    rows, scores, cams = [], [], []
    runs = {run.key: run for run in plan.runs if run.arm == arm and workshop.asks(run.budget)}
    for key in runs:
        kept = load_kept(workshop.folder, key)
        if CAMS in kept:
            rows.append(kept[CAM_ROWS])
            scores.append(kept[SCORES][np.searchsorted(kept[ROWS], kept[CAM_ROWS])])
            cams += list(kept[CAMS])
    return np.concatenate(rows), np.concatenate(scores), cams


def _spread(order: np.ndarray, units: np.ndarray) -> list[tuple[str, int]]:
    """(place, entry) of the first, middle and last entries of ``order``, of different units where there are such."""
    wanted = {"best": 0, "median": len(order) // 2, "worst": len(order) - 1}
    found: dict[str, int] = {}
    for place, at in wanted.items():
        used = [int(units[one]) for one in found.values()]
        free = [position for position in range(len(order)) if order[position] not in found.values()]
        if free:
            nearest = min(free, key=lambda position: (units[order[position]] in used, abs(position - at)))
            found[place] = int(order[nearest])
    return list(found.items())


def _picture(
    workshop: "ClassificationWorkshop", row: int, cam: np.ndarray, scores: np.ndarray, place: str
) -> HeatPicture:
    masks, target = workshop.masks, workshop.target
    assert masks is not None
    image = target.store.images[row].mean(axis=0)
    mask = masks.mask(row)
    grown = -(-_SIDE // masks.size)
    side = grown * masks.size
    large = np.asarray(Image.fromarray(image.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC))
    inside = np.kron(mask, np.ones((grown, grown), dtype=bool))
    ring = inside & ~binary_erosion(inside, iterations=_LINE)
    known = torch.from_numpy(cam.astype(np.float32))[None]
    box = find_in_heat(heat_maps(known, mask.shape)[0].numpy())
    frames = [] if box is None else _frames(box.box, grown)
    heat = heat_maps(known, (side, side))[0].numpy()
    panels = [overlay(large), overlay(large, heat, boxes=frames)]
    for panel in panels:
        panel[ring] = REFERENCE
    gap = np.zeros((side, _GAP, 3), dtype=np.uint8)
    named = dict(zip(LOCALISATION_METRICS, scores.tolist(), strict=True))
    told = [f"{WORDS[name]} {MEASURES.score(named[name], name)}" for name in LOCALISATION_METRICS if name != MAIN]
    return HeatPicture(
        image=np.concatenate([panels[0], gap, panels[1]], axis=1),
        hit=named[MAIN] > 0,
        place=place,
        sample=str(target.manifest.table["sample"].iloc[row]),
        label=target.manifest.classes[target.labels[row]],
        score=" · ".join(told),
    )


def _frames(box: Box, grown: int) -> list[Box]:
    """The box on a grid ``grown`` times as fine, one frame within the other for a thicker line."""
    first, last = [grown * at for at in box.first], [grown * at + grown - 1 for at in box.last]
    within = [(tuple(at + n for at in first), tuple(at - n for at in last)) for n in range(_LINE)]
    return [Box(*ends) for ends in within if all(low <= high for low, high in zip(*ends, strict=True))]
