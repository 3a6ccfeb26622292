"""Benchmarks: a reference and ours side by side, results checked against each other, the ratio printed."""
