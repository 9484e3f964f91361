"""Benchmarks: the same items in five input modes, graded, with intervals and chance levels."""
