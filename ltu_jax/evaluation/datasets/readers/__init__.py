"""Readers of published datasets as users have them: one function a dataset, `read(data, split)`."""
