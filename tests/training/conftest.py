"""Fixtures of the training tests; `conftest_training` holds what the tests also import."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from conftest_training import tiny, tiny_stage1  # noqa: F401
