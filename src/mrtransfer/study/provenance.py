"""What weights have seen before, and that no score is taken of it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mrtransfer.common.errors import UserError
from mrtransfer.models.weights import splits_in
from mrtransfer.study.domain import Domain


def refuse_seen(
    trained_on: Mapping[str, Any], target: Domain, digests: np.ndarray, tested: np.ndarray, where: str
) -> None:
    """Raise :class:`UserError` that begins with ``where`` if weights were ``trained_on`` some of the ``tested`` rows.

    By subject, by the samples' ``digests`` (N,), and by the published splits that a file says, or is said, to be of.
    """
    subjects = {name for name in target.subjects[tested] if name} & set(trained_on.get("subjects", ()))
    samples = set(digests[tested].tolist()) & set(trained_on.get("row_digests", ()))
    splits = splits_in(trained_on, target.manifest.name).get(target.manifest.name, [])
    published = target.manifest.table["split"].iloc[tested]
    if splits and published.isna().all():
        raise UserError(
            f"{where}: these weights were trained on a published split ({', '.join(splits)}), and these data come "
            "without theirs; give them with their split, or leave trained_on out if they are others"
        )
    known = int(published.isin(splits).sum())
    if subjects:
        what = f"{len(subjects)} of the test subjects"
    elif samples:
        what = f"{len(samples)} of the test images"
    elif known:
        what = f"the published split ({', '.join(splits)}) that {known} of the {len(tested)} test samples are from"
    else:
        return
    raise UserError(
        f"{where}: these weights were trained on {what}, so a score on them would be void; "
        "use weights that never saw them, or test on other subjects"
    )
