"""Studies whose arms may see harmonised scans: whose scans are the reference, never those of test subjects."""

from abc import abstractmethod
from functools import cached_property
from typing import Any

import numpy as np

from mrtransfer.common.files import digest
from mrtransfer.data.harmoniser import FittedHarmoniser, Harmoniser
from mrtransfer.data.split import Fold
from mrtransfer.study.plan import ALL, make_folds_of
from mrtransfer.study.workshop import A, D, Job, N, Workshop


class HarmonisingWorkshop(Workshop[A, D, N]):
    """The tools of a study whose recipe has ``harmonise``; a task says how a reference is learned of its scans."""

    @cached_property
    def _fitted(self) -> dict[str, FittedHarmoniser]:
        return {}

    def harmoniser(self, job: Job[A, D], domain: D) -> FittedHarmoniser | None:
        """What images of ``domain`` pass through before the job's network sees them; None where they stay as they are.

        Its reference is that of the source model's training rows, without the fold's test subjects; for an arm that
        uses no source, of all development rows of the target, whose labels make no difference.
        """
        source = job.source
        arm = source.arm if source is not None and domain is self.source else job.arm
        how: Harmoniser | None = getattr(arm, "harmonise", None)
        if how is None:
            return None
        if source is not None:
            assert self.source is not None
            reference, rows = self.source, source.train
        elif job.domain is self.source:
            reference, rows = self.source, job.train
        else:
            reference, rows = self.target, self._development(job.fold)
        key = digest([how.model_dump(mode="json"), "source" if reference is self.source else "target", rows.tolist()])
        if key not in self._fitted:
            self._fitted[key] = self.fit_harmoniser(how, reference, rows)
        return self._fitted[key]

    def reference(self, arm: A, fold: Fold) -> dict[str, Any]:
        """For the keys of runs: whose scans the arm's are harmonised to, where no source run says it."""
        alone = getattr(arm, "harmonise", None) is not None and not arm.needs_source
        return {"reference": digest(fold.development.tolist())} if alone else {}

    @abstractmethod
    def fit_harmoniser(self, how: Harmoniser, domain: D, rows: np.ndarray) -> FittedHarmoniser:
        """The harmoniser with these rows of ``domain`` as reference."""

    def _development(self, fold: int) -> np.ndarray:
        """The target's rows that may be looked at in ``fold``; all, for the model handed over after several folds."""
        folds = make_folds_of(self.recipe, self.target)
        if fold != ALL:
            return folds[fold].development
        return folds[0].development if len(folds) == 1 else np.arange(len(self.target.labels))
