"""What was found in a scan, in numbers: volumes, lesions, and what to be careful about."""

from pathlib import Path
from typing import Any

import numpy as np
from nibabel.orientations import aff2axcodes

from mrtransfer.common.plain import plain
from mrtransfer.data.readers.location import Location, is_phantom
from mrtransfer.data.volume.read import read_planes
from mrtransfer.deploy.scans import Scan
from mrtransfer.deploy.segmenter import Segmented, Segmenter
from mrtransfer.tasks.segmentation.lesions import list_lesions

SEEN = "this scan was part of the training data"
SEEN_SUBJECT = "subject {} was part of the training data"
NO_SIZE = "the image does not say how large its pixels are: 1 mm is assumed, in a slice of 1 mm"


def summarise(segmenter: Segmenter, scan: Scan, result: Segmented) -> dict[str, Any]:
    """The summary of one scan, as JSON can write it.

    ``volumes_ml`` of every region and ``classes_ml`` of every class; ``lesions``, by region from the largest to the
    smallest, each with ``volume_ml``, ``centre_mm`` (right, anterior, superior), ``confidence`` (mean probability) and
    bounding box in voxels; ``grid`` of the scan; ``model`` (digest of its weights) and ``precision``; ``warnings``.
    """
    labels, case = segmenter.labels, result.case
    voxel_ml = abs(float(np.linalg.det(case.affine[:3, :3]))) / 1000
    counts = np.bincount(result.classes.ravel(), minlength=len(labels.names))
    summary = {
        "volumes_ml": {
            name: float(counts[member].sum()) * voxel_ml
            for name, member in zip(labels.region_names, labels.membership, strict=True)
        },
        "classes_ml": {name: float(counts[k]) * voxel_ml for k, name in enumerate(labels.names) if k},
        "lesions": [lesion.to_json() for lesion in list_lesions(result.classes, case.affine, labels, result.regions)],
        "grid": {
            "shape": list(result.classes.shape),
            "spacing_mm": list(case.spacing),
            "axes": "".join(aff2axcodes(case.affine)),
        },
        "model": segmenter.digest,
        "precision": result.precision.name,
        "warnings": _warnings(segmenter, scan, result),
    }
    shown: dict[str, Any] = plain(summary)
    return shown


def _warnings(segmenter: Segmenter, scan: Scan, result: Segmented) -> list[str]:
    found = []
    if result.digest in set(segmenter.provenance.get("row_digests", ())):
        found.append(SEEN)
    else:
        known = set(segmenter.provenance.get("subjects", ()))
        found += [SEEN_SUBJECT.format(name) for name in _names(scan) if name in known][:1]
    if result.classes.shape[2] == 1 and not _has_size(scan):
        found.append(NO_SIZE)
    return found


def _names(scan: Scan) -> list[str]:
    """What the scan's subject may be called: its name, and its files' and folders' names."""
    names = [scan.name]
    for location in scan.locations:
        path = Path(Location.parse(location).path)
        names += [path.name.split(".")[0], *path.absolute().parts[-2:0:-1]]
    return names


def _has_size(scan: Scan) -> bool:
    """Whether a file says where its slice lies, or how large its pixels are."""
    if is_phantom(scan.locations[0]):
        return True
    planes = [read_planes(location, Path.cwd()) for location in scan.locations]
    return any(one.placed or one.affine[0, 0] != 1 for one in planes)
