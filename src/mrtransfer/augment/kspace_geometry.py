"""MRAugment's geometry: what happens to each slice, and which pixels every augmented pixel is the weighted sum of.

Flips, quarter turns, whole-pixel translations and one affine map are composed before a pixel is touched: the first
three permute rows and columns each on their own, so they are tables; the affine map then asks these tables for four
neighbours. One gather does it all, for all coils of a pixel at once, because their values lie side by side.
"""

import math
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


@dataclass(frozen=True)
class MRParams:
    """What happens to each of n slices, in this order; all fields but the last two have n rows, on the CPU.

    ``hflip``, ``vflip``: left and right, top and bottom change places. ``rot90``: quarter turns anticlockwise as
    displayed. ``translate``: (n, 2), whole pixels down and right. Then one affine map about the centre, whose parts are
    ``rotate``: degrees anticlockwise as displayed, after ``shear``: (n, 2), degrees along x, then y, as torchvision
    counts them, after ``scale``: above 1 enlarges. ``upsample``, ``order``: the affine map acts on images enlarged by
    this factor, bilinearly (1) or bicubically (3), and reduced again afterwards.
    """

    hflip: Tensor
    vflip: Tensor
    rot90: Tensor
    translate: Tensor
    rotate: Tensor
    shear: Tensor
    scale: Tensor
    upsample: int = 1
    order: int = 1

    def __len__(self) -> int:
        return len(self.hflip)

    @property
    def warps(self) -> Tensor:
        """(n,) bool: slices that the affine map changes, so that pixels are interpolated."""
        return (self.rotate != 0) | (self.shear != 0).any(dim=1) | (self.scale != 1)

    @property
    def changes(self) -> Tensor:
        """(n,) bool: slices that anything changes."""
        return self.hflip | self.vflip | (self.rot90 != 0) | (self.translate != 0).any(dim=1) | self.warps

    def take(self, rows: Tensor | slice | list[int]) -> "MRParams":
        """The parameters of some of the slices."""
        return self.changed(**{name: getattr(self, name)[rows] for name in _BY_SLICE})

    def changed(self, **values: Tensor) -> "MRParams":
        """A copy with some fields replaced."""
        return replace(self, **values)  # type: ignore[arg-type]

    def without_affine(self) -> "MRParams":
        """Only what moves whole pixels."""
        none = MRParams.identity(len(self))
        return self.changed(rotate=none.rotate, shear=none.shear, scale=none.scale)

    def only_affine(self) -> "MRParams":
        """Only what interpolates."""
        none = MRParams.identity(len(self))
        return none.changed(rotate=self.rotate, shear=self.shear, scale=self.scale)

    @classmethod
    def identity(cls, n: int) -> "MRParams":
        """Parameters that change nothing."""
        whole, false = torch.zeros(n, 2, dtype=torch.int64), torch.zeros(n, dtype=torch.bool)
        zeros = torch.zeros(n, 2, dtype=torch.float64)
        return cls(false, false, whole[:, 0], whole, zeros[:, 0], zeros, torch.ones(n, dtype=torch.float64))

    @classmethod
    def cat(cls, parts: "list[MRParams]") -> "MRParams":
        """Parameters of the same settings, one after another."""
        return parts[0].changed(**{name: torch.cat([getattr(part, name) for part in parts]) for name in _BY_SLICE})


_BY_SLICE = [field.name for field in fields(MRParams) if field.name not in ("upsample", "order")]


@dataclass(frozen=True)
class Gather:
    """Each output pixel is the sum of four pixels of its slice: ``index`` (n, h · w, 4) int32, ``weight`` likewise."""

    index: Tensor
    weight: Tensor

    def __call__(self, table: Tensor) -> Tensor:
        """``table``: (n, H · W, channels) to (n, h · w, channels), real."""
        n, pixels, channels = table.shape
        index = self.index
        if n > 1:
            index = index + torch.arange(0, n * pixels, pixels, dtype=torch.int32, device=index.device)[:, None, None]
        weight = self.weight.flatten(0, 1)
        out = embedding_bag(index.flatten(0, 1), table.flatten(0, 1), mode="sum", per_sample_weights=weight)
        return out.view(n, -1, channels)


def gather(
    params: MRParams,
    shape: tuple[int, int],
    like: Tensor,
    *,
    output: tuple[int, int] | None = None,
    unshifted: bool = False,
) -> Gather:
    """The pixels behind every pixel of the augmented slices; beyond the border, images are reflected.

    ``shape``: (H, W) of the images. ``like``: weights get its device and its real dtype. ``output``: (h, w), only the
    centre is wanted. ``unshifted``: images are the unshifted inverse transform of centred k-space, and the unshifted
    transform of the result is to be centred k-space; all sizes must be even. A shift by half the size on one side is
    the sign (−1)^k on the other: here both are part of indices and weights, and cost no pass over the images.
    """
    size = output or shape
    back = _inverse(params)
    out = [_positions(shape[axis], size[axis], unshifted) for axis in range(2)]
    reach = back.abs() @ torch.stack([position.abs().max() for position in out])  # from the centre, rows and columns
    first = [math.floor((shape[axis] - 1) / 2 - float(reach[:, axis].max())) - 1 for axis in range(2)]
    # An even length keeps the parity of positions in a table whose slices follow one another.
    length = [2 * math.ceil(shape[axis] / 2 + float(reach[:, axis].max()) + 2) for axis in range(2)]
    tables, parity = _tables(params, shape, first, length, unshifted)
    n, device, real = len(params), like.device, like.real.dtype

    whole, part, found = [], [], []
    for axis in range(2):
        along = back[:, axis, 0, None] * out[0] + ((shape[axis] - 1) / 2 - first[axis])
        across = back[:, axis, 1, None] * out[1]
        at = along.to(device, real)[:, :, None] + across.to(device, real)[:, None, :]
        floor = at.int()  # positions in the table are positive
        part.append(at.sub_(floor))
        floor += torch.arange(0, n * length[axis], length[axis], dtype=torch.int32, device=device)[:, None, None]
        whole.append(floor)
        table, where = tables[axis].to(device).flatten(), floor.flatten()
        found.append((table.index_select(0, where), table[1:].index_select(0, where)))

    sign = None
    if unshifted:
        odd = whole[0].add_(whole[1])
        odd += (parity[:, None] + torch.arange(size[0])).to(device, torch.int32)[:, :, None]
        odd += torch.arange(size[1], dtype=torch.int32, device=device)
        sign = odd.bitwise_and_(1).to(real).mul_(-2).add_(1)
    index = torch.empty(n, size[0] * size[1], 4, dtype=torch.int32, device=device)
    for corner in range(4):
        torch.add(found[0][corner // 2].view(n, -1), found[1][corner % 2].view(n, -1), out=index[..., corner])
    return Gather(index, _weights(part[0], part[1], sign))


def _weights(down: Tensor, right: Tensor, sign: Tensor | None) -> Tensor:
    """Bilinear weights (n, h · w, 4) of four neighbours, from the distances (n, h, w) to the first, down and right.

    ``sign``: (n, h, w), of the first neighbour, where signs alternate from pixel to pixel.
    """
    n = len(down)
    weight = torch.empty(n, down[0].numel(), 4, dtype=down.dtype, device=down.device)
    upper, lower, step = 1 - down, down, 1
    if sign is not None:
        upper, lower, step = upper.mul_(sign), lower * sign.neg_(), -1
    for first, line in ((0, upper), (2, lower)):
        second = line * right
        torch.sub(line.view(n, -1), second.view(n, -1), out=weight[..., first])
        torch.mul(second.view(n, -1), step, out=weight[..., first + 1])
    return weight


def _positions(whole: int, wanted: int, unshifted: bool) -> Tensor:
    """(wanted,) float64: output pixels, counted from the image's centre; in an unshifted image the centre is first."""
    place = torch.arange(wanted, dtype=torch.float64) + (whole - wanted) // 2 - (whole - 1) / 2
    return place.roll(-(wanted // 2)) if unshifted else place


def _inverse(params: MRParams) -> Tensor:
    """(n, 2, 2) float64: from the offset (rows, columns) of an output pixel to where it comes from."""
    # As displayed, y points down: anticlockwise is a negative angle.
    angle, shear = -params.rotate.double() * (math.pi / 180), params.shear.double() * (math.pi / 180)
    cos, sin, tan_x, tan_y = torch.cos(angle), torch.sin(angle), torch.tan(shear[:, 0]), torch.tan(shear[:, 1])
    one = torch.ones_like(cos)

    def matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        return torch.stack((a, b, c, d), dim=1).view(-1, 2, 2)

    # Inverses of scale · rotation · shear along y · shear along x, in reverse order; (y, x).
    back_x = matrix(one, 0 * one, tan_x, one)
    back_y = matrix(one, tan_y, 0 * one, one)
    return back_x @ back_y @ matrix(cos, -sin, sin, cos) / params.scale.double()[:, None, None]


def _tables(
    params: MRParams, shape: tuple[int, int], first: list[int], length: list[int], unshifted: bool
) -> tuple[list[Tensor], Tensor]:
    """What rows and columns, from ``first`` on, add to a pixel's index: two (n, length) int32; and a parity (n,).

    With ``unshifted``, the sign of pixel (a, b), counted from ``first``, is (−1)^(a + b + parity): neighbours in a
    table are neighbours in the image, reflected or not.
    """
    tables = [np.empty((len(params), count), np.int32) for count in length]
    parity = np.zeros(len(params), np.int64)
    for slice_, (hflip, vflip, turns) in enumerate(zip(params.hflip, params.vflip, params.rot90, strict=True)):
        turns = int(turns) % 4
        # Undo the translation, then place the turned image centrally: a quarter turn may not fit where sides differ.
        turned = shape if turns % 2 == 0 else (shape[1], shape[0])
        place = []
        for axis in range(2):
            moved = _reflected(np.arange(first[axis], first[axis] + length[axis]), shape[axis])
            moved = _reflected(moved - int(params.translate[slice_, axis]), shape[axis])
            place.append(_reflected(moved + (turned[axis] - shape[axis]) // 2, turned[axis]))
        # One quarter turn takes row i of the result from column W − 1 − i, and column j from row j.
        if turns in (1, 2):
            place[0] = turned[0] - 1 - place[0]
        if turns in (2, 3):
            place[1] = turned[1] - 1 - place[1]
        for axis in range(2):
            source = axis if turns % 2 == 0 else 1 - axis
            line, extent = place[axis], shape[source]
            line = extent - 1 - line if bool((vflip, hflip)[source]) else line
            if unshifted:
                parity[slice_] += int(line[0]) + extent // 2
                line = (line + extent // 2) % extent
            tables[axis][slice_] = line * shape[1] if source == 0 else line
    return [torch.from_numpy(table) for table in tables], torch.from_numpy(parity)


def _reflected(position: np.ndarray, size: int) -> np.ndarray:
    """Positions within 0…size−1: beyond a border the image is mirrored about its outermost pixel."""
    if size == 1:
        return np.zeros_like(position)
    folded = position % (2 * size - 2)
    return np.minimum(folded, 2 * size - 2 - folded)
