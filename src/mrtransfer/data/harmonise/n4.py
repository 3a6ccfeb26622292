"""N4: the slow brightness gradient that a receive coil leaves is estimated and divided out."""

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from mrtransfer.common.errors import UserError
from mrtransfer.data.harmonise import HARMONISERS
from mrtransfer.data.harmonise._curve import background_removed, foreground_of, shows
from mrtransfer.data.harmoniser import Harmoniser, NothingLearned
from mrtransfer.data.volume import background_values

_FEWEST = 16  # pixels along an axis below which it is not shrunk further: the splines need some
_NEGATIVE = 0.05  # share of the foreground; overshoot of an interpolation is less


@HARMONISERS.register("n4")
class N4(Harmoniser):
    """N4 bias-field correction of every scan by itself (needs SimpleITK: the extra n4).

    Tustison et al., IEEE Transactions on Medical Imaging 29, 2010. Nothing is learned of the source. The field is
    estimated from the foreground on a coarser grid; it is scaled such that the foreground's mean stays as it is.
    Background stays as it is. N4 works on the logarithm of intensities: where more than 5 % of the foreground is
    negative (a scan that was normalised before, not one that was resampled), it is refused.
    """

    name: ClassVar[str] = "n4"
    words: ClassVar[str] = "N4 bias-field correction"
    neighbours: ClassVar[bool] = True

    shrink: int = Field(4, ge=1)
    """How much coarser the grid is; along axes that would get shorter than 16 pixels, less."""
    iterations: tuple[int, ...] = Field((50, 50, 50, 50), min_length=1)
    """At most, at each level; the mesh of splines is twice as fine at the next."""
    tolerance: float = Field(1e-3, gt=0)
    """A level ends where the field changes less (coefficient of variation of the ratio of two successive fields)."""
    control_points: int = Field(4, ge=4)
    """Of the cubic splines along each axis at the first level; 4 are one span."""
    foreground: Literal["auto", "nonzero", "silhouette", "above_mean"] = "auto"
    """What the field is estimated from. ``nonzero``: all but the value in all corners of the image, or else 0.
    ``silhouette``: the anatomy in noisy air. ``above_mean``: what is brighter than the image's mean. ``auto``:
    ``nonzero`` where at least a quarter of the image is exactly the background's value, otherwise ``above_mean``, for
    noise in dark fluid has no field to tell of."""

    def _learn(self, images: Iterable[np.ndarray]) -> NothingLearned:
        _simple_itk()  # tells early that it is not installed
        return NothingLearned()

    def _harmonised(self, image: np.ndarray, learned: NothingLearned) -> np.ndarray:
        backgrounds = background_values(image)
        how = self.foreground
        if how == "auto":
            how = "nonzero" if background_removed(image, backgrounds) else "above_mean"
        result = image.copy()
        masks = foreground_of(image, backgrounds, how)
        for channel, out, background, inside in zip(image, result, backgrounds, masks, strict=True):
            if not shows(channel[inside]):
                continue
            negative = float(np.mean(channel[inside] < 0))
            if negative > _NEGATIVE:
                raise UserError(
                    f"{negative:.0%} of its foreground is negative (down to {channel.min():g}), and N4 works on the "
                    "logarithm of intensities; give scans as they came from the scanner, not normalised ones"
                )
            gain = self._gain(channel, inside & (channel > 0))
            corrected = channel / gain
            corrected *= channel[inside].mean(dtype=np.float64) / corrected[inside].mean(dtype=np.float64)
            lit = channel != background
            out[lit] = corrected[lit]
        return result

    def _gain(self, channel: np.ndarray, inside: np.ndarray) -> np.ndarray:
        """The estimated field, of the shape of ``channel`` (*spatial), as a factor of the true intensity."""
        sitk = _simple_itk()
        long = tuple(slice(None) if size > 1 else 0 for size in channel.shape)  # one slice is a 2-D image
        whole = sitk.GetImageFromArray(channel[long])
        mask = sitk.GetImageFromArray(inside[long].astype(np.uint8))
        factors = [max(1, min(self.shrink, size // _FEWEST)) for size in whole.GetSize()]
        correct = sitk.N4BiasFieldCorrectionImageFilter()
        correct.SetNumberOfThreads(1)  # sums in one order, so that the same scan gives the same bytes
        correct.SetMaximumNumberOfIterations(self.iterations)
        correct.SetConvergenceThreshold(self.tolerance)
        correct.SetNumberOfControlPoints([self.control_points] * whole.GetDimension())
        correct.Execute(sitk.Shrink(whole, factors), sitk.Shrink(mask, factors))
        field = sitk.GetArrayFromImage(correct.GetLogBiasFieldAsImage(whole))
        return np.exp(field).reshape(channel.shape)


def _simple_itk() -> Any:
    """The library, which few need; raises :class:`UserError` where it is not installed."""
    try:
        import SimpleITK
    except ImportError as error:
        raise UserError(
            "harmonise n4: needs SimpleITK, which is not installed; install it with pip install 'mrtransfer[n4]'"
        ) from error
    return SimpleITK
