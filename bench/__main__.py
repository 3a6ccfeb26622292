"""Run every benchmark and keep what it printed in ``bench/results``: ``python -m bench [NAME ...]``."""

import subprocess
import sys
from pathlib import Path

NAMES = ("label_budgets", "fine_tuning", "memory", "patches", "sliding", "distributed", "varnet", "mraugment", "mmd")
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Each in a process of its own, one after another."""
    RESULTS.mkdir(exist_ok=True)
    for name in sys.argv[1:] or NAMES:
        print(f"{name} …", flush=True)
        done = subprocess.run([sys.executable, "-m", f"bench.{name}"], check=True, capture_output=True, text=True)
        print(done.stdout)
        (RESULTS / f"{name}.json").write_text(done.stdout)


if __name__ == "__main__":
    main()
