"""Maps of a comparison's features: which slices are on them, their coordinates in a table, and small pictures."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from mrtransfer.common.files import atomic_path
from mrtransfer.shift.maps import WORDS, has_umap, make_map
from mrtransfer.shift.measured import Tables
from mrtransfer.shift.settings import ShiftSettings
from mrtransfer.shift.slices import Slices

COORDINATES, THUMBNAILS = "maps.csv", "thumbnails.jpg"
POINTS = 1000
"""Slices on a map, at most: more would be a blur, and t-SNE takes its time."""
PICTURES = 400
SIDE = 64  # pixels of a thumbnail
ACROSS = 20  # thumbnails in a row
_CHANNELS = 3  # side by side in a thumbnail
_WINDOW = (0.5, 99.5)


def draw_maps(
    source: Slices,
    target: Slices,
    tables: Mapping[str, Tables],
    settings: ShiftSettings,
    directory: Path,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Write ``maps.csv`` and ``thumbnails.jpg`` into ``directory``; returns what they hold, as JSON can write it.

    Of larger domains, slices are chosen evenly from all, so that both domains keep their share. A row of the table is
    a slice; the columns ``<feature>_<map>_1`` and ``_2`` are its place.
    """
    methods = [method for method in settings.maps if method != "umap" or has_umap()]
    notes = [] if methods == list(settings.maps) else ["UMAP is not drawn: umap-learn is not installed (extra umap)."]
    rows = _chosen(len(source), len(target), POINTS)
    placed = _points(source, target, rows)
    drawn = []
    for feature, (x, y) in tables.items():
        for method in methods:
            at = make_map(x[rows[0]], y[rows[1]], method, settings.seed)
            placed[f"{feature}_{method}_1"], placed[f"{feature}_{method}_2"] = at[:, 0], at[:, 1]
            drawn.append({"feature": feature, "method": method, "words": WORDS[method]})
            advance(1)
        advance(len(settings.maps) - len(methods))
    if not drawn:
        return {"points": 0, "drawn": [], "notes": notes}
    pictured = np.unique(np.linspace(0, len(placed) - 1, min(PICTURES, len(placed))).round().astype(int))
    placed["thumbnail"] = pd.Series(np.arange(len(pictured)), index=pictured, dtype="Int64")
    with atomic_path(directory / COORDINATES) as temporary:
        placed.to_csv(temporary, index=False, float_format="%.5g")
    images = [source.images[row] for row in rows[0]], [target.images[row] for row in rows[1]]
    sprite = _sprite([[*images[0], *images[1]][place] for place in pictured])
    with atomic_path(directory / THUMBNAILS) as temporary:
        Image.fromarray(sprite).save(temporary, "JPEG", quality=82, optimize=True)
    shape = {"side": SIDE, "across": ACROSS, "width": SIDE * min(_CHANNELS, source.images.shape[1])}
    return {"points": len(placed), "drawn": drawn, "notes": notes, "thumbnails": {"number": len(pictured), **shape}}


def _chosen(n: int, m: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of source and target, at most ``most`` together, and evenly spread: rows of a subject are neighbours."""
    share = min(1.0, most / (n + m))
    kept = max(2, round(n * share)), max(2, round(m * share))
    spread = [np.linspace(0, total - 1, min(total, few)).round() for total, few in zip((n, m), kept, strict=True)]
    return np.unique(spread[0]).astype(int), np.unique(spread[1]).astype(int)


def _points(source: Slices, target: Slices, rows: tuple[np.ndarray, np.ndarray]) -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {
                "domain": name,
                "subject": domain.subjects[own],
                "sample": domain.samples[own],
                "class": domain.labels[own],
                "scanner": domain.scanners[own],
            }
        )
        for name, domain, own in (("source", source, rows[0]), ("target", target, rows[1]))
    ]
    return pd.concat(parts, ignore_index=True)


def _sprite(images: list[np.ndarray]) -> np.ndarray:
    """All thumbnails in one picture, uint8, in rows of :data:`ACROSS`."""
    small = [_thumbnail(np.asarray(image)) for image in images]
    width = small[0].shape[1]
    sheet = np.zeros((-(-len(small) // ACROSS) * SIDE, min(ACROSS, len(small)) * width), dtype=np.uint8)
    for place, image in enumerate(small):
        down, right = divmod(place, ACROSS)
        sheet[down * SIDE : (down + 1) * SIDE, right * width : (right + 1) * width] = image
    return sheet


def _thumbnail(image: np.ndarray) -> np.ndarray:
    """The first channels (C, H, W) side by side, each in its own window."""
    small = []
    for channel in image[:_CHANNELS]:
        low, high = np.percentile(channel, _WINDOW)
        grey = np.clip((channel - low) / max(high - low, 1e-12), 0, 1) * 255
        small.append(Image.fromarray(grey.astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    return np.concatenate([np.asarray(one) for one in small], axis=1)
