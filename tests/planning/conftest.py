"""What the TPU compiler makes of small programs: one process for all tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def for_tpu(tmp_path_factory) -> Path:
    """The folder that `compile_for_tpu.py` fills; libtpu allows one process and never lets go."""
    folder = tmp_path_factory.mktemp("for_tpu")
    command = [sys.executable, str(Path(__file__).with_name("compile_for_tpu.py")), str(folder)]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder
