"""The wheel holds the whole product: every module and every data file of its packages."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("ltu_jax", "configs", "data_pipelines")
# What `python -m ltu_jax.ship` writes into the package.
SHIPPED = ("config.json", "params.safetensors", "run.json", "parity.json", "MODEL_CARD.md",
           ".ltu_jax_output.json")  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """Build the wheel of a copy of the sources: setuptools leaves its files beside them."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in (*PACKAGES[1:], "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).symlink_to(ROOT / name)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "ltu_jax", source / "ltu_jax", ignore=ignored)
    if not (ROOT / "ltu_jax" / "pretrained").exists():  # this version comes without a model
        (source / "ltu_jax" / "pretrained").mkdir()
        for name in SHIPPED:
            (source / "ltu_jax" / "pretrained" / name).write_text("{}")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps"]
    subprocess.run([*command, "--wheel-dir", folder, source], check=True)
    return zipfile.ZipFile(next(folder.glob("ltu_jax-*.whl")))


def test_every_module_and_data_file_is_in_the_wheel(wheel):
    there = {name for name in wheel.namelist() if ".dist-info/" not in name}
    product = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert there == product | {f"ltu_jax/pretrained/{name}" for name in SHIPPED}


def test_the_wheel_is_small(wheel):
    assert Path(wheel.filename).stat().st_size <= 25_000_000


def test_the_wheel_names_its_licence_and_its_pythons(wheel):
    folder = next(name.partition("/")[0] for name in wheel.namelist() if ".dist-info/" in name)
    metadata = wheel.read(f"{folder}/METADATA").decode()
    for line in (
        "License-Expression: Apache-2.0",
        "Requires-Python: >=3.11",
        "License-File: LICENSE",
    ):
        assert f"\n{line}\n" in metadata
    assert wheel.read(f"{folder}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
