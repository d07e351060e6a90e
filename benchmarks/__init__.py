"""Benchmarks of jsqa_metric beside its peers: accuracy, speed and robustness. See `benchmarks/README.md`."""
