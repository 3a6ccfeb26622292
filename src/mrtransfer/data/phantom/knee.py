"""A second anatomy: the knee, from thigh to calf, with a bone sarcoma.

As the head, an implicit function of position in mm: x across, y from back to front, z from foot to head, the origin in
the joint's middle. Bones, cartilage, menisci, cruciate ligaments, tendons, muscles with fat between them and the
popliteal vessels have the sizes of an adult's; shapes are rough. The sarcoma sits where most do, in the distal femur or
the proximal tibia, breaks through the cortex, and has necrosis, an enhancing rim, and oedema in marrow and muscle.
"""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from mrtransfer.data.phantom.anatomy import Labels
from mrtransfer.data.phantom.grid import Floats, Grid, RandomField
from mrtransfer.data.phantom.head import Place, depth_in_ellipsoid, ellipsoid
from mrtransfer.data.phantom.randomness import Stream, generator
from mrtransfer.data.phantom.tissues import Tissue
from mrtransfer.data.phantom.tumours import Lesion, paint

LESIONS = ("sarcoma", "no_tumour")
_SKIN = 1.6  # mm
_CORTEX = 1.8
_CARTILAGE = 2.4


@dataclass(frozen=True, eq=False)
class Knee:
    """What is drawn once for a subject; lengths in mm, angles in radians."""

    seed: int
    subject: int
    side: float  # +1 or -1: left or right
    scale: float
    rotation: float
    shift: tuple[float, float]
    girth: float  # relative width of the soft parts
    fat: float  # thickness under the skin
    effusion: float  # half thickness of the fluid above the patella

    @cached_property
    def septa(self) -> RandomField:
        """The field along whose zero set muscles are parted by fat."""
        return self._field(0, 11.0)

    @cached_property
    def lumps(self) -> RandomField:
        """Slow irregularity of all surfaces."""
        return self._field(1, 26.0)

    @cached_property
    def grain(self) -> RandomField:
        """By which the proton density differs within a tissue."""
        return self._field(2, 5.2)

    def _field(self, number: int, knot: float) -> RandomField:
        return RandomField.draw(generator(self.seed, Stream.KNEE, self.subject, 1 + number), knot, 110.0)

    def coordinates(self, grid: Grid) -> tuple[Floats, Floats, Floats]:
        """Positions of the grid's points in the knee's own frame, each broadcastable to ``grid.shape``."""
        x, y, z = grid.axes()
        x, y = x - self.shift[0], y - self.shift[1]
        cos, sin, scale = (np.float32(v) for v in (np.cos(self.rotation), np.sin(self.rotation), 1 / self.scale))
        return self.side * scale * (cos * x + sin * y), scale * (cos * y - sin * x), scale * z


@lru_cache(maxsize=32)
def knee(seed: int, subject: int) -> Knee:
    """The knee of ``subject``, a pure function of the two numbers."""
    draw = generator(seed, Stream.KNEE, subject, 0)
    return Knee(
        seed,
        subject,
        side=float(draw.choice([-1.0, 1.0])),
        scale=float(np.clip(draw.normal(1.0, 0.06), 0.88, 1.12)),
        rotation=np.deg2rad(draw.normal(0, 8.0)),
        shift=(draw.normal(0, 4.0), draw.normal(0, 4.0)),
        girth=float(np.clip(draw.normal(1.0, 0.06), 0.9, 1.15)),
        fat=draw.uniform(3.0, 11.0),
        effusion=draw.uniform(0.8, 4.0),
    )


@lru_cache(maxsize=32)
def sarcoma(seed: int, subject: int) -> Lesion:
    """The subject's bone tumour, a pure function of the arguments."""
    draw = generator(seed, Stream.KNEE, subject, 1)
    radius = float(np.clip(draw.normal(15.0, 3.0), 9, 22))
    femur = draw.random() < 0.65
    z = draw.uniform(22, 46) if femur else draw.uniform(-44, -22)
    centre = (draw.uniform(-16, 16), draw.uniform(-8, 10), z)
    half = radius * np.clip(draw.normal((0.9, 0.9, 1.2), 0.12), 0.65, 1.5)
    found = Lesion(
        "sarcoma",
        centre,
        (float(half[0]), float(half[1]), float(half[2])),
        irregularity=draw.uniform(0.15, 0.35),
        rim=draw.uniform(2.4, 6.0),
        necrosis=draw.uniform(0.35, 0.9),
        oedema=draw.uniform(4, 14),
    )
    size, reach = float(half.mean()), 2 * float(half.max()) + 25
    middle = (knee(seed, subject).side * centre[0], centre[1], centre[2])  # fields are in the scanner's frame
    surface = RandomField.draw(draw, max(5.5, 0.55 * size), reach, middle)
    return replace(found, surface=surface, inside=RandomField.draw(draw, max(4.5, 0.35 * size), reach, middle))


def knee_labels(seed: int, subject: int, kind: str, grid: Grid) -> tuple[Labels, Labels, Floats]:
    """A subject's knee on any grid: tissue labels without the tumour and with it, and the grain of unit variance."""
    body = knee(seed, subject)
    x, y, z = body.coordinates(grid)
    septa, lumps = body.septa.on(grid), body.lumps.on(grid)
    at = Place(x + lumps, y + 0.8 * lumps, z + 0 * x, _depth(body, x, y, z) + 1.2 * lumps)
    healthy = _soft_parts(body, at, septa)
    _joint(body, healthy, at)
    labels = healthy if kind == "no_tumour" else paint(sarcoma(seed, subject), healthy, at, grid)
    return healthy, labels, body.grain.on(grid)


def _depth(body: Knee, x: Floats, y: Floats, z: Floats) -> Floats:
    """Depth (mm) below the skin: a limb of elliptic sections, wider in the thigh and the calf than at the joint."""
    width = body.girth * (53 + 0.16 * np.maximum(z, 0) + 0.05 * np.maximum(-z, 0)) + 0.5 * body.fat
    height = body.girth * (58 + 0.10 * np.maximum(z, 0) - 0.10 * np.maximum(-z, 0)) + 0.5 * body.fat
    radius = np.sqrt((x / width) ** 2 + ((y + 3) / height) ** 2)
    return (1 - radius) * np.minimum(width, height)


def _soft_parts(body: Knee, at: Place, septa: Floats) -> Labels:
    """Skin, fat, muscles around thigh and calf; fat before and beside the joint and in the hollow behind it."""
    labels = np.full(at.depth.shape, Tissue.AIR, dtype=np.uint8)
    labels[at.depth > 0] = Tissue.SKIN
    labels[at.depth > _SKIN] = Tissue.FAT
    around = ellipsoid(at.x, at.y, at.z, (0, 22, 0), (74, 48, 38)) < 1 + 0.15 * septa
    shin = ellipsoid(at.x, at.y, at.z, (-20, 26, -48), (34, 27, 52)) < 1 + 0.15 * septa
    hollow = ellipsoid(at.x, at.y, at.z, (0, -42, 8), (15, 13, 46)) < 1
    muscle = (at.depth > _SKIN + body.fat) & ~around & ~shin & ~hollow & (np.abs(septa) > 0.13)
    labels[muscle] = Tissue.MUSCLE
    for side in (-4.5, 4.5):  # popliteal artery and vein
        labels[(at.x - side) ** 2 + (at.y + 38) ** 2 < 3.2**2] = Tissue.BLOOD
    front = np.abs(at.y - 46 + 0.02 * np.abs(at.z) ** 1.2)
    labels[(front < 2.6) & (np.abs(at.x) < 13) & ((at.z < 4) & (at.z > -36) | (at.z > 36))] = Tissue.TENDON
    return labels


def _joint(body: Knee, labels: Labels, at: Place) -> None:
    """Bones with cortex and fatty marrow, cartilage, menisci, cruciate ligaments and fluid."""
    femur, tibia = _femur(at), _tibia(at)
    patella = depth_in_ellipsoid(at.x, at.y - 46, at.z - 20, (22, 10, 21))
    fibula = np.minimum(7 - np.hypot(at.x - 36, at.y + 22), -16 - at.z)
    gap = (femur > -6) & (tibia > -6.5) & (np.abs(at.x) < 39)
    recess = ellipsoid(at.x, at.y, at.z, (0, 35, 46), (17, body.effusion + 1.5, 16)) < 1
    labels[gap | recess] = Tissue.JOINT_FLUID
    ring = np.hypot((np.abs(at.x) - 20) / 18, (at.y + 4) / 22)
    wedge = gap & (ring > 0.5) & (ring < 1.1) & (np.abs(at.z + 6.5) < 7 * (ring - 0.5))
    labels[wedge] = Tissue.MENISCUS
    covered = (np.abs(at.x) < 36) & (at.z < 26) & ((at.y < 20) | (at.z > 0))
    labels[covered & (femur > -_CARTILAGE)] = Tissue.CARTILAGE
    labels[(tibia > -_CARTILAGE) & (at.z > -10) & gap] = Tissue.CARTILAGE
    labels[(patella > -_CARTILAGE) & (at.y < 44) & (np.abs(at.z - 20) < 17)] = Tissue.CARTILAGE
    for start, end in (((4, -14, 14), (-2, 9, -8)), ((-4, -4, 9), (1, -27, -12))):  # front and back cruciate ligament
        labels[_to_segment(at, start, end) < 3.6] = Tissue.TENDON
    bone = np.maximum(np.maximum(femur, tibia), np.maximum(patella, fibula))
    labels[bone > 0] = Tissue.BONE
    labels[bone > _CORTEX] = Tissue.FATTY_MARROW


def _femur(at: Place) -> Floats:
    """Depth (mm) in the femur: a shaft that widens into two condyles with a notch between them at the back."""
    flare = 14 + 25 * np.exp(-np.maximum(at.z - 18, 0) / 16)
    shaft = np.minimum(flare - np.hypot(at.x, 1.3 * (at.y - 3)), at.z - 10)
    condyles = depth_in_ellipsoid(np.abs(at.x) - 20, at.y + 3, at.z - 17, (19, 31, 21))
    notch = depth_in_ellipsoid(at.x, at.y + 22, at.z - 2, (9, 27, 20))
    return np.minimum(np.maximum(shaft, condyles), -notch)


def _tibia(at: Place) -> Floats:
    """Depth (mm) in the tibia: a flat plateau that narrows into a shaft."""
    flare = 13 + 25 * np.exp(-np.maximum(-10 - at.z, 0) / 17)
    eminence = 5 * np.exp(-np.square(at.x / 6) - np.square((at.y + 2) / 14))
    return np.minimum(flare - np.hypot(at.x, 1.35 * (at.y + 1)), -9 + eminence - at.z)


def _to_segment(at: Place, start: tuple[float, ...], end: tuple[float, ...]) -> Floats:
    """Distance (mm) to the straight line between two points."""
    way = np.subtract(end, start).astype(np.float32)
    x, y, z = at.x - np.float32(start[0]), at.y - np.float32(start[1]), at.z - np.float32(start[2])
    along = np.clip((x * way[0] + y * way[1] + z * way[2]) / np.float32((way**2).sum()), 0, 1)
    return np.sqrt((x - along * way[0]) ** 2 + (y - along * way[1]) ** 2 + (z - along * way[2]) ** 2)
