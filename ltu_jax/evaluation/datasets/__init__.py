"""Benchmarks: items, clips and the readers that make them of published data."""
