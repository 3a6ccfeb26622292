"""(i) Maximum mean discrepancy with a permutation test, against scikit-learn's kernel computed for every permutation.

    python -m bench.mmd [--rows 20000] [--permutations 1000] [--large 1000000] [--part 2000] [--quick]

Each domain has so many rows of 512 made-up features (float32), and each row is a subject of its own: the hardest case,
as nothing can be added up beforehand. Sides, one after the other in processes of their own:

    ours       value, permutations and p with measure(); without the bootstrap, which the other side does not do either
    theirs     rbf_kernel within X, within Y and between them, for one permutation of a part of the rows; its time is
               scaled with the square of the rows and with the number of permutations (at full size it would need
               8 bytes for each pair of rows)
    large      random_feature_mmd of ``--large`` rows in each domain, which are made up block by block as they are asked
               for, and so never in memory together; the time for making them up is given beside

Memory: the peak of the whole process, and of what it is above the imports. Agreement: of the exact value with
scikit-learn's in float64, on the part; of random features with the exact value there, in standard errors.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

FEATURES = 512
SHIFT = 0.02
BLOCK = 4096


def main() -> None:
    """Run each side in a process of its own and print times, memory, ratio and agreement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000, help="in each domain")
    parser.add_argument("--permutations", type=int, default=1000)
    parser.add_argument("--large", type=int, default=1_000_000, help="rows in each domain for random features")
    parser.add_argument("--part", type=int, default=2000, help="rows in each domain that the other side is timed on")
    parser.add_argument("--quick", action="store_true", help="5,000 rows, 200 permutations, 50,000 rows for features")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.rows, options.permutations, options.large, options.part = 5000, 200, 50_000, 1000
    if options.side:
        print(json.dumps(SIDES[options.side](options)))
        return
    found = {side: in_process(side, options) for side in SIDES}
    ratio = found["theirs"]["seconds_scaled"] / found["ours"]["seconds"]
    print(json.dumps({"rows": options.rows, "features": FEATURES, **found, "times_faster": round(ratio)}, indent=1))


def ours(options: argparse.Namespace) -> dict[str, object]:
    """The whole test, from arrays in memory to p."""
    import torch

    from mrtransfer.shift.distance import measure, parse_distance

    x, y = Rows(options.rows, 0)[:], Rows(options.rows, 1)[:]
    units = np.arange(2 * options.rows)
    before, started = peak(), time.perf_counter()
    found = measure(
        parse_distance("mmd"), x, y, units[: len(x)], units[len(x) :], permutations=options.permutations, resamples=0
    )
    took = time.perf_counter() - started
    return {
        "seconds": round(took, 2),
        "threads": torch.get_num_threads(),
        "value": found.value,
        "p": found.p,
        "permutations": found.relabellings,
        **memory(before),
    }


def theirs(options: argparse.Namespace) -> dict[str, object]:
    """One permutation of a part, scaled; and how far values agree there."""
    from sklearn.metrics.pairwise import rbf_kernel

    from bench.common import median, seconds
    from mrtransfer.shift.distances.mmd import maximum_mean_discrepancy
    from mrtransfer.shift.distances.mmd_random_features import random_feature_mmd

    n = options.part
    x, y = Rows(n, 0)[:], Rows(n, 1)[:]
    gamma = 1 / (2 * FEATURES)
    both = np.concatenate([x, y]).astype(np.float64)

    def one_permutation() -> float:
        order = np.random.default_rng(0).permutation(2 * n)
        return reference(both[order[:n]], both[order[n:]], gamma)

    def reference(a: np.ndarray, b: np.ndarray, gamma: float) -> float:
        within = sum(
            (k.sum() - np.trace(k)) / (n * (n - 1)) for k in (rbf_kernel(a, gamma=gamma), rbf_kernel(b, gamma=gamma))
        )
        return float(within - 2 * rbf_kernel(a, b, gamma).mean())

    one_permutation()
    one = median([seconds(one_permutation) for _ in range(3)])
    exact, expected = maximum_mean_discrepancy(x, y, gamma=gamma), reference(both[:n], both[n:], gamma)
    rough = random_feature_mmd(x, y, gamma)
    return {
        "rows_timed": n,
        "seconds_one_permutation": round(one, 3),
        "seconds_scaled": round(one * (options.rows / n) ** 2 * options.permutations),
        "relative_difference_of_values": abs(exact / expected - 1),
        "random_features_off_by_standard_errors": round((rough.value - exact) / rough.standard_error, 2),
    }


def large(options: argparse.Namespace) -> dict[str, object]:
    """Random features of rows that never are in memory together."""
    from mrtransfer.shift.distances.mmd_random_features import random_feature_mmd

    x, y = Rows(options.large, 0), Rows(options.large, 1)
    before, started = peak(), time.perf_counter()
    found = random_feature_mmd(x, y)
    took = time.perf_counter() - started
    return {
        "rows": options.large,
        "seconds": round(took, 1),
        "seconds_making_rows_up": round(x.seconds + y.seconds, 1),
        "value": found.value,
        "standard_error": found.standard_error,
        **memory(before),
    }


SIDES = {"ours": ours, "theirs": theirs, "large": large}


class Rows:
    """A table of made-up features that exists block by block, the same whenever it is asked for."""

    def __init__(self, rows: int, domain: int) -> None:
        self.shape = (rows, FEATURES)
        self.domain, self.seconds = domain, 0.0

    def __getitem__(self, wanted: slice) -> np.ndarray:
        started = time.perf_counter()
        start, stop, _ = wanted.indices(self.shape[0])
        found = np.empty((stop - start, FEATURES), np.float32)
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            low, high = max(start, block * BLOCK), min(stop, (block + 1) * BLOCK)
            generator = np.random.default_rng([self.domain, block])
            made = generator.standard_normal((high - block * BLOCK, FEATURES), dtype=np.float32)
            found[low - start : high - start] = made[low - block * BLOCK :] + SHIFT * self.domain
        self.seconds += time.perf_counter() - started
        return found


def in_process(side: str, options: argparse.Namespace) -> dict[str, object]:
    sizes = [f"--{key}={getattr(options, key)}" for key in ("rows", "permutations", "large", "part")]
    command = [sys.executable, "-m", "bench.mmd", "--side", side, *sizes]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak() -> float:
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory(before: float) -> dict[str, int]:
    return {"peak_mib": round(peak()), "peak_mib_above_imports_and_tables": round(peak() - before)}


if __name__ == "__main__":
    main()
