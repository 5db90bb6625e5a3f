"""Benchmarks: competitors are checked first, then timed in turns."""
