"""Fixtures of the training tests: the official tiny LTU-AS with LoRA and without."""

from tests.support.golden_model import tiny, tiny_stage1  # noqa: F401
