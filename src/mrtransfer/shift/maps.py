"""Maps of two domains in the plane: PCA, t-SNE and, where it is installed, UMAP."""

import warnings
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
from threadpoolctl import threadpool_limits

from mrtransfer.common.errors import UserError, unknown_name

_COMPONENTS = 50  # t-SNE and UMAP look at so many principal components, as van der Maaten and Hinton (2008) do
_PERPLEXITY = 30.0
_NEIGHBOURS = 15
_FEW = 10  # fewer points have no spectrum to start UMAP from


def make_map(x: np.ndarray, y: np.ndarray, method: str = "pca", seed: int = 0) -> np.ndarray:
    """Positions (n + m, 2) float64 of the rows of ``x`` (n, d) and then of ``y`` (m, d), placed together.

    ``pca``: the first two principal components, in the features' units. ``tsne``: t-SNE (van der Maaten and Hinton,
    JMLR 9, 2008), whose perplexity is 30, or a third of the number of rows where that is less. ``umap``: UMAP (McInnes
    et al., arXiv:1802.03426) with 15 neighbours, or all there are. The last two keep neighbours together; distances
    between far groups mean nothing there. Raises :class:`UserError` for an unknown method, for UMAP where it is not
    installed, and for fewer than four rows.
    """
    if method not in METHODS:
        raise unknown_name("map", method, METHODS)
    if method == "umap" and not has_umap():
        raise UserError("maps: umap needs the package umap-learn; pip install 'mrtransfer[umap]', or leave umap out")
    rows = np.concatenate([np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)])
    if len(rows) < 4:
        raise UserError(f"maps: {len(rows)} slices are too few for a map; four are needed")
    with threadpool_limits(1):  # sums over threads depend on how many there are, and results must not
        return np.asarray(METHODS[method](rows, seed), dtype=np.float64)


def has_umap() -> bool:
    """Whether UMAP can be drawn here; asking does not import it."""
    return find_spec("umap") is not None


def perplexity(rows: int) -> float:
    """t-SNE's perplexity: it must be well below the number of rows."""
    return max(1.0, min(_PERPLEXITY, (rows - 1) / 3))


def _pca(rows: np.ndarray, seed: int, components: int = 2) -> np.ndarray:
    from sklearn.decomposition import PCA

    wanted = min(components, *rows.shape)
    with np.errstate(invalid="ignore"):  # rows all alike have no variance to explain
        found = PCA(wanted, svd_solver="full").fit_transform(rows)
    return np.pad(found, ((0, 0), (0, max(0, 2 - wanted))))  # one single feature lies on a line


def _tsne(rows: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    near = _pca(rows, seed, _COMPONENTS)
    if not near.any():
        return near[:, :2]  # all rows alike: one point
    placed: np.ndarray = TSNE(2, perplexity=perplexity(len(rows)), init="pca", random_state=seed).fit_transform(near)
    return placed


def _umap(rows: np.ndarray, seed: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it says of its own numba and of one thread is no news to a user
        from umap import UMAP

        start = "spectral" if len(rows) > _FEW else "random"
        reducer = UMAP(n_neighbors=min(_NEIGHBOURS, len(rows) - 1), init=start, random_state=seed, n_jobs=1)
        placed: np.ndarray = reducer.fit_transform(_pca(rows, seed, _COMPONENTS))
    return placed


METHODS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {"pca": _pca, "tsne": _tsne, "umap": _umap}
"""Map to the function that draws it; of positions alone, no axis has a meaning but PCA's."""
WORDS = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
