"""Receive coils: what each element of an array sees of the body, from the magnetic field of circular loops.

Coordinates are in mm: x across, y from back to front, z along the main field. By reciprocity (Hoult, Concepts Magn
Reson 12:173, 2000) a coil receives in proportion to the field Bx − iBy that a unit current in it would make. That of a
circular loop has a closed form in elliptic integrals (Simpson et al., NASA/TM-2013-217919, 2001). It is the field in
free space: neither the body's currents nor the coupling of elements bend it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ellipe, ellipk

_WIRE = 4.0  # mm, the radius of the conductor: inside it the field grows no further
_PER_RING = 10  # more coils than these stand in several rings along z
_OVERLAP = 1.3  # distance of neighbours in loop radii
_BIRDCAGE = 12  # loops whose sum is the even field of a volume coil

Doubles = NDArray[np.float64]


def loop_field(rho: ArrayLike, z: ArrayLike, radius: ArrayLike) -> tuple[Doubles, Doubles]:
    """The field (radial, axial) of a circular loop in the plane z = 0 around the axis, for μ₀I = 1, in 1/mm.

    ``rho`` distance from the axis, ``z`` height above the loop's plane, ``radius`` of the loop, all in mm.
    """
    rho, z, a = (np.asarray(value, dtype=np.float64) for value in (rho, z, radius))
    rho = np.maximum(rho, 1e-3)  # on the axis the radial part is 0/0
    near = np.maximum((a - rho) ** 2 + z**2, _WIRE**2)  # squared distance to the nearest point of the wire
    far = (a + rho) ** 2 + z**2
    m = np.clip(1 - near / far, 0, None)
    e, k = ellipe(m), ellipk(m)
    r2 = rho**2 + z**2
    scale = 1 / (2 * np.pi * near * np.sqrt(far))
    return scale * z / rho * ((a**2 + r2) * e - near * k), scale * ((a**2 - r2) * e + near * k)


@dataclass(frozen=True, eq=False)
class CoilArray:
    """Loops around a body: where they are, which way they look, and how strongly each is amplified.

    The sum of squares of all sensitivities is 1 in the array's middle.
    """

    centres: Doubles  # (coils, 3) mm
    normals: Doubles  # (coils, 3) unit vectors
    radii: Doubles  # (coils,) mm
    gains: NDArray[np.complex128]  # (coils,)
    together: bool = False  # one channel: the loops' sum

    @classmethod
    def around(
        cls,
        coils: int,
        half: tuple[float, float],
        generator: np.random.Generator,
        *,
        middle: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> "CoilArray":
        """``coils`` loops on a cylinder along z with half axes ``half`` (x, y in mm) around ``middle``.

        The array is up to a quarter wider; places, sizes, tilts and amplification of the loops vary by a few per cent,
        their phases are any. One coil is a volume coil, whose sensitivity is even. ``ValueError`` where ``coils`` is
        below 1.
        """
        if coils < 1:
            raise ValueError(f"{coils} coils; an array has 1 or more")
        loops = coils if coils > 1 else _BIRDCAGE
        rings = -(-loops // (_PER_RING if coils > 1 else _BIRDCAGE))
        sizes = [loops // rings + (ring < loops % rings) for ring in range(rings)]
        start = generator.uniform(0, 2 * np.pi)
        size = generator.uniform(0.97, 1.25)
        angle = np.concatenate([start + 2 * np.pi * (np.arange(n) + ring / 2) / n for ring, n in enumerate(sizes)])
        spacing = 2 * np.pi * size * np.mean(half) / np.repeat(sizes, sizes)
        radii = np.minimum(spacing / _OVERLAP, 0.6 * np.mean(half)) * np.exp(0.04 * generator.standard_normal(loops))
        height = (np.repeat(np.arange(rings), sizes) - (rings - 1) / 2) * _OVERLAP * radii.mean()
        turned = angle + 0.06 * generator.standard_normal(loops)
        centres = np.stack([size * half[0] * np.sin(turned), size * half[1] * np.cos(turned), height], axis=1)
        centres += generator.normal(0, 3.0, (loops, 3)) + np.asarray(middle)
        inwards = np.stack([-np.sin(turned), -np.cos(turned), 0 * turned], axis=1)
        normals = inwards + 0.06 * generator.standard_normal((loops, 3))
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        gains = np.exp(0.12 * generator.standard_normal(loops) + 1j * generator.uniform(0, 2 * np.pi, loops))
        if coils == 1:  # currents that follow the angle make the even, circularly polarised field
            gains = np.exp(-1j * angle)
        array = cls(centres, normals, radii, gains, coils == 1)
        centre = array.sensitivities(*(np.full((1,), value) for value in middle))
        return cls(centres, normals, radii, gains / np.sqrt((np.abs(centre) ** 2).sum()), coils == 1)

    def sensitivities(self, x: ArrayLike, y: ArrayLike, z: ArrayLike) -> NDArray[np.complex64]:
        """(coils, …) at points (mm) whose coordinates broadcast against each other."""
        x, y, z = np.broadcast_arrays(*(np.asarray(value, dtype=np.float64) for value in (x, y, z)))
        seen = np.empty((len(self.radii), *x.shape), dtype=np.complex64)
        for coil, (centre, normal) in enumerate(zip(self.centres, self.normals, strict=True)):
            dx, dy, dz = x - centre[0], y - centre[1], z - centre[2]
            along = dx * normal[0] + dy * normal[1] + dz * normal[2]
            rx, ry, rz = dx - along * normal[0], dy - along * normal[1], dz - along * normal[2]
            rho = np.maximum(np.sqrt(rx**2 + ry**2 + rz**2), 1e-9)
            radial, axial = loop_field(rho, along, self.radii[coil])
            radial /= rho
            seen[coil] = self.gains[coil] * (radial * rx + axial * normal[0] - 1j * (radial * ry + axial * normal[1]))
        return seen.sum(axis=0, keepdims=True) if self.together else seen

    def noise_correlation(self, x: ArrayLike, y: ArrayLike, z: ArrayLike, *, share: float) -> NDArray[np.complex128]:
        """(coils, coils) correlation of the noise where ``share`` of it comes from the body at these points.

        Noise from the body is common to coils that see the same places: it correlates as the inner product of their
        sensitivities, in the spirit of Roemer et al., Magn Reson Med 16:192 (1990). The rest is each coil's own.
        """
        seen = self.sensitivities(x, y, z)
        seen = seen.reshape(len(seen), -1).astype(np.complex128)
        common = seen @ seen.conj().T
        level = np.sqrt(np.diag(common).real)
        return share * common / np.outer(level, level) + (1 - share) * np.eye(len(seen))


def receive_maps(
    coils: int,
    shape: tuple[int, int],
    fov_mm: tuple[float, float],
    slice_position: float,
    generator: np.random.Generator,
) -> NDArray[np.complex64]:
    """Sensitivities (coils, H, W) on an axial slice at height ``slice_position`` mm, rows from front to back.

    The array of loops surrounds the field of view ``fov_mm`` (rows, columns). Slices of one volume need a generator in
    the same state each, since it draws the array.
    """
    height, width = fov_mm
    array = CoilArray.around(coils, (0.58 * width, 0.58 * height), generator)
    rows, columns = ((np.arange(n) + 0.5) * length / n - length / 2 for n, length in zip(shape, fov_mm, strict=True))
    return array.sensitivities(columns[None, :], -rows[:, None], slice_position)
