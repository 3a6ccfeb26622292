"""(c) Peak memory of a study with few and with many runs: it must not grow with their number.

    python -m bench.memory [--seeds 2 16]

Runs the same small phantom study in a process of its own with each number of seeds and prints the peak resident memory.
"""

import argparse
import json
import subprocess
import sys
import tempfile

RUN = """
import resource, sys
from mrtransfer import Study
recipe = {
    "question": "memory",
    "target": {"dataset": "phantom", "contrast": "t2", "subjects": 60, "slices": 1, "split": {"folds": 2}},
    "input": {"size": 48, "channels": 1}, "shared": {"network": "cbr_tiny", "normalise": "unit"},
    "arms": {"scratch": {"method": {"name": "scratch", "epochs": 1}}, "frozen": {"method": "linear_probe"}},
    "seeds": int(sys.argv[1]), "precision": "float32", "resamples": 200, "metric": "accuracy",
}
finished = Study.from_recipe(recipe).run(sys.argv[2])
print(len(finished.results["runs"]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def main() -> None:
    """Print runs and peak memory for each number of seeds, and the growth per run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 16])
    found = []
    for seeds in parser.parse_args().seeds:
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, "-c", RUN, str(seeds), folder], check=True, capture_output=True, text=True
            )
        runs, peak = done.stdout.split()[-2:]
        found.append({"runs": int(runs), "peak_mib": round(float(peak))})
    growth = (found[-1]["peak_mib"] - found[0]["peak_mib"]) / (found[-1]["runs"] - found[0]["runs"])
    print(json.dumps({"studies": found, "mib_per_further_run": round(growth, 2)}, indent=1))


if __name__ == "__main__":
    main()
