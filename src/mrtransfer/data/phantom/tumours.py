"""Lesions: tumours whose place and look depend on their class, and harmless findings that any subject may have.

* glioma: inside the brain, irregular; high grade with necrosis, a patchy enhancing rim and oedema that spreads through
  white matter; low grade homogeneous, without enhancement
* meningioma: outside the brain, on the dura (convexity, falx or skull base), smooth, homogeneous enhancement, a cleft
  of CSF, dural tail; some with oedema or calcification
* pituitary: a midline adenoma of the sella, from within the gland to far above it; some with a cyst
* no_tumour: none

Harmless findings (spots of gliosis, small cysts) are in all classes, so that an unusual spot is not a tumour by itself.
Places and looks after Osborn, *Osborn's Brain*, 2nd ed., Elsevier 2017, in broad strokes.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from mrtransfer.data.phantom.anatomy import SELLA, Labels
from mrtransfer.data.phantom.grid import Floats, Grid, RandomField
from mrtransfer.data.phantom.head import Head, Place, ellipsoid, head
from mrtransfer.data.phantom.randomness import Stream, generator
from mrtransfer.data.phantom.tissues import BRAIN, Tissue

CLASSES = ("glioma", "meningioma", "pituitary", "no_tumour")
_Point = tuple[float, float, float]
_IS_BRAIN = np.isin(np.arange(len(Tissue)), BRAIN)
_SWELLING = {"sarcoma": (Tissue.FATTY_MARROW, Tissue.MUSCLE)}  # where oedema spreads; elsewhere in white matter


@dataclass(frozen=True, eq=False)
class Lesion:
    """One tumour: where it is, in mm in the head's frame, and how it looks."""

    kind: str
    centre: _Point
    half: _Point  # half axes of its core
    irregularity: float
    rim: float = 0.0  # thickness of the enhancing rim; 0: low grade, or homogeneous
    necrosis: float = 0.0  # relative radius of the part that may be necrotic
    oedema: float = 0.0  # reach into white matter
    calcified: float = 0.0  # relative radius of a calcified part
    cyst: float = 0.0  # relative radius of a cystic part
    push: float = 0.0  # how far tissue gives way at the tumour's edge
    surface: RandomField | None = None
    inside: RandomField | None = None

    def heights(self, head: Head) -> tuple[float, float]:
        """Lowest and highest slice position (mm) that the core reaches."""
        middle = head.scanner_height(*self.centre)
        return middle - self.half[2], middle + self.half[2]


@lru_cache(maxsize=32)
def lesion(seed: int, subject: int, kind: str) -> Lesion | None:
    """The subject's tumour of class ``kind``, a pure function of the arguments; None for ``no_tumour``."""
    if kind == "no_tumour":
        return None
    draw = generator(seed, Stream.LESION, subject, CLASSES.index(kind))
    found = {"glioma": _glioma, "meningioma": _meningioma, "pituitary": _pituitary}[kind](head(seed, subject), draw)
    size = float(np.mean(found.half))
    reach = 2 * max(found.half) + 25
    return replace(
        found,
        surface=RandomField.draw(draw, max(5.5, 0.55 * size), reach, found.centre),
        inside=RandomField.draw(draw, max(4.5, 0.35 * size), reach, found.centre),
    )


def _glioma(head: Head, draw: np.random.Generator) -> Lesion:
    radius = float(np.clip(draw.normal(18.0, 4.0), 11, 27))
    side = draw.choice([-1.0, 1.0])
    low = draw.random() < 0.28  # height: near the base (temporal lobe), or anywhere above
    z = draw.uniform(-30, -16) if low else draw.uniform(-8, 38)
    x = draw.uniform(34, 50) if low else draw.uniform(14, 46)
    y = draw.uniform(-8, 26) if low else draw.uniform(-52, 52)
    reach = np.sqrt((x / head.axes[0]) ** 2 + (y / head.axes[1]) ** 2 + (max(z - 8, 0) / head.axes[2]) ** 2)
    pull = min(1.0, (1 - 0.75 * radius / head.axes[0]) / reach)
    high_grade = draw.random() < 0.75
    half = radius * np.clip(draw.normal(1, 0.16, 3), 0.65, 1.4)
    return Lesion(
        "glioma",
        (side * x * pull, y * pull, z),
        tuple(half.tolist()),
        irregularity=draw.uniform(0.2, 0.42),
        rim=draw.uniform(2.4, 6.0) if high_grade else 0.0,
        necrosis=draw.uniform(0.35, 0.95) if high_grade else 0.0,
        oedema=draw.uniform(4, 18) if high_grade else draw.uniform(0, 5),
        cyst=draw.uniform(0.3, 0.6) if not high_grade and draw.random() < 0.25 else 0.0,
        push=radius * draw.uniform(0.15, 0.45),
    )


def _meningioma(head: Head, draw: np.random.Generator) -> Lesion:
    radius = float(np.clip(draw.normal(17.0, 4.0), 10, 26))
    half = radius * np.clip(draw.normal(1, 0.1, 3), 0.8, 1.25)
    site = draw.choice(["convexity", "falx", "base"], p=[0.5, 0.2, 0.3])
    if site == "convexity":
        point = head.surface_point(draw.uniform(0, 2 * np.pi), np.deg2rad(draw.uniform(-4, 52)))
        inwards = point - np.array([0, 0, 8.0])
        centre = point - inwards / np.linalg.norm(inwards) * radius * draw.uniform(0.35, 0.8)
    elif site == "falx":
        y = draw.choice([-1.0, 1.0]) * draw.uniform(40, 66)
        centre = np.array([draw.choice([-1.0, 1.0]) * radius * draw.uniform(0.3, 0.8), y, draw.uniform(12, 36)])
    else:  # olfactory groove, planum, sphenoid wing, petrous bone
        around = draw.choice(4)
        x, y, z = ((4, 52, -17), (5, 36, -19), (31, 30, -22), (30, -20, -26))[around]
        side = draw.choice([-1.0, 1.0])
        centre = np.array([side * (x + draw.normal(0, 3)), y + draw.normal(0, 4), z + 0.3 * radius])
    return Lesion(
        "meningioma",
        tuple(centre.tolist()),
        tuple(half.tolist()),
        irregularity=draw.uniform(0.03, 0.14),
        oedema=draw.uniform(3, 14) if draw.random() < 0.4 else 0.0,
        calcified=draw.uniform(0.25, 0.6) if draw.random() < 0.2 else 0.0,
        cyst=draw.uniform(0.25, 0.45) if draw.random() < 0.12 else 0.0,
        push=radius * draw.uniform(0.25, 0.5),
    )


def _pituitary(head: Head, draw: np.random.Generator) -> Lesion:
    radius = float(np.clip(draw.normal(12.5, 2.5), 8, 19))
    x, y, z = SELLA
    return Lesion(
        "pituitary",
        (x + draw.normal(0, 1.5), y + draw.normal(0, 1.5), z + draw.uniform(0.0, 0.5) * radius),
        (radius * draw.uniform(0.9, 1.25), radius * draw.uniform(0.8, 1.1), radius * draw.uniform(0.9, 1.4)),
        irregularity=draw.uniform(0.05, 0.2),
        cyst=draw.uniform(0.3, 0.65) if draw.random() < 0.3 else 0.0,
        push=radius * draw.uniform(0.1, 0.3),
    )


def pushed(at: Place, lesion: Lesion) -> Place:
    """Where tissue was before the tumour pushed it aside; the skull does not move."""
    x, y, z = at.x - lesion.centre[0], at.y - lesion.centre[1], at.z - lesion.centre[2]
    size = np.float32(np.mean(lesion.half))
    distance = np.sqrt(x**2 + y**2 + z**2) + 1e-3
    fade = np.exp(-np.square(distance / (2.2 * size))) * np.minimum(distance / size, 1)
    give = np.float32(lesion.push) * fade / distance
    return Place(at.x - x * give, at.y - y * give, at.z - z * give, at.depth)


def paint(lesion: Lesion, labels: Labels, at: Place, grid: Grid) -> Labels:
    """``labels`` with the tumour in it; ``at`` are the positions before :func:`pushed`."""
    assert lesion.surface is not None
    assert lesion.inside is not None
    radius = np.sqrt(ellipsoid(at.x, at.y, at.z, lesion.centre, lesion.half))
    if radius.min() > 2.5:
        return labels
    rough = radius * (1 + np.float32(lesion.irregularity) * lesion.surface.on(grid))
    inner = lesion.inside.on(grid)
    size = np.float32(np.mean(lesion.half))
    labels = labels.copy()
    if lesion.oedema:
        spread = (rough - 1) * size + 3.0 * inner < lesion.oedema
        labels[spread & np.isin(labels, _SWELLING.get(lesion.kind, (Tissue.WHITE,)))] = Tissue.OEDEMA
    painters = {
        "glioma": _paint_glioma,
        "meningioma": _paint_meningioma,
        "pituitary": _paint_pituitary,
        "sarcoma": _paint_sarcoma,
    }
    painters[lesion.kind](lesion, labels, at, rough, inner, size)
    if lesion.cyst:
        water = Tissue.ADENOMA_CYST if lesion.kind == "pituitary" else Tissue.NECROSIS
        core = np.isin(labels, (Tissue.GLIOMA, Tissue.MENINGIOMA, Tissue.ADENOMA))
        labels[core & (rough + 0.35 * inner < lesion.cyst)] = water
    return labels


def _paint_glioma(lesion: Lesion, labels: Labels, at: Place, rough: Floats, inner: Floats, size: Any) -> None:
    room = (at.depth > 1.0) & (labels != Tissue.DURA) & (labels != Tissue.BONE)
    _paint_core(lesion, labels, room & (rough < 1), rough, inner, size)


def _paint_sarcoma(lesion: Lesion, labels: Labels, at: Place, rough: Floats, inner: Floats, size: Any) -> None:
    room = (at.depth > 4.0) & (labels != Tissue.CARTILAGE)  # growing cartilage is a barrier, the cortex is not
    _paint_core(lesion, labels, room & (rough < 1), rough, inner, size)


def _paint_core(lesion: Lesion, labels: Labels, core: Any, rough: Floats, inner: Floats, size: Any) -> None:
    """Tumour tissue, in a high grade with an enhancing rim around what may be necrotic."""
    labels[core] = Tissue.GLIOMA
    if lesion.rim:
        wall = (1 - rough) * size + 1.2 * inner
        labels[core & (wall < lesion.rim) & (inner > -0.9)] = Tissue.GLIOMA_RIM
        labels[core & (wall >= lesion.rim) & (rough + 0.25 * inner < lesion.necrosis)] = Tissue.NECROSIS


def _paint_meningioma(lesion: Lesion, labels: Labels, at: Place, rough: Floats, inner: Floats, size: Any) -> None:
    outside = (rough - 1) * size
    room = at.depth > 0
    labels[room & (outside < 2.2) & _IS_BRAIN[labels]] = Tissue.CSF
    labels[room & (rough < 1)] = Tissue.MENINGIOMA
    labels[(np.abs(at.depth) < 1.6) & (outside < 0.7 * size)] = Tissue.MENINGIOMA  # the dural tail
    if lesion.calcified:
        labels[(labels == Tissue.MENINGIOMA) & (rough + 0.5 * inner < lesion.calcified)] = Tissue.CALCIFICATION


def _paint_pituitary(lesion: Lesion, labels: Labels, at: Place, rough: Floats, inner: Floats, size: Any) -> None:
    # Above the sella's entrance the tumour has a waist, the figure of a snowman.
    waist = 1 + 0.22 * np.exp(-np.square((at.z - SELLA[2] - 5) / 2.5))
    room = (at.depth > 0) & (labels != Tissue.BLOOD)
    labels[room & (rough * waist < 1)] = Tissue.ADENOMA


def incidental(seed: int, subject: int, head: Head, labels: Labels, at: Place) -> None:
    """Paint harmless findings that have nothing to do with the class: gliotic spots, now and then a small cyst."""
    draw = generator(seed, Stream.INCIDENTAL, subject)
    for _ in range(int(draw.integers(0, 5))):
        centre = (draw.choice([-1, 1]) * draw.uniform(15, 42), draw.uniform(-55, 50), draw.uniform(-6, 42))
        radius = draw.uniform(1.5, 3.5)
        half = radius * draw.uniform(0.7, 1.6, 3)
        if at.z.min() - 8 < centre[2] < at.z.max() + 8:
            spot = ellipsoid(at.x, at.y, at.z, centre, tuple(half.tolist())) < 1
            labels[spot & (labels == Tissue.WHITE)] = Tissue.GLIOSIS
    if draw.random() < 0.1:
        point = head.surface_point(draw.uniform(0, 2 * np.pi), np.deg2rad(draw.uniform(-5, 45)))
        half = draw.uniform(5, 11) * draw.uniform(0.8, 1.2, 3)
        cyst = ellipsoid(at.x, at.y, at.z, tuple((0.95 * point).tolist()), tuple(half.tolist())) < 1
        labels[cyst & (at.depth > 0.5)] = Tissue.CYST
