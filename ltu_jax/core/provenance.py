"""Origin of a result: versions of packages, commit of this code, processor and devices."""

import importlib.metadata
import platform
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ltu_jax.core.hardware import cores

ROOT = Path(__file__).resolve().parents[2]
NOT_INSTALLED = "not installed"
_EVALUATION = ("jax", "jaxlib", "flax", "transformers", "numpy", "whisper-normalizer", "soxr")


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the version of each package, `NOT_INSTALLED` for one that is not there."""
    by_package = {}
    for name in packages:
        try:
            by_package[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            by_package[name] = NOT_INSTALLED
    return by_package


def git_state(folder: Path = ROOT) -> dict[str, Any] | None:
    """Return the commit of a checkout and whether its files differ from it.

    None where `folder` is not the root of a checkout: a copy that is installed inside another
    project's checkout is not of that project's commit.
    """
    commands = {
        "root": ("rev-parse", "--show-toplevel"),
        "commit": ("rev-parse", "HEAD"),
        "changed": ("status", "--porcelain", "-uno"),
    }
    outputs = {}
    for name, command in commands.items():
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *command],
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        if done.returncode:
            return None
        outputs[name] = done.stdout.strip()
    if Path(outputs["root"]).resolve() != folder.resolve():
        return None
    return {"commit": outputs["commit"], "changed": bool(outputs["changed"])}


def processor() -> str:
    """Return the name of the CPU and how many of its cores this process may use."""
    return f"{_cpuinfo('model name') or platform.machine()}, {cores()} cores"


def processor_features() -> str:
    """Return the CPU's instruction sets, as the system tells them; empty where it does not."""
    return _cpuinfo("flags|Features")


def _cpuinfo(name: str) -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.is_file() else ""
    match = re.search(rf"^(?:{name})\s*:\s*(.+)", text, re.MULTILINE)
    return match[1].strip() if match else ""


def environment() -> dict[str, Any]:
    """Return git state, package versions and JAX's devices, for the config.json of a run."""
    import jax

    devices = jax.devices()
    return {
        "git": git_state(),
        "versions": versions(_EVALUATION),
        "python": platform.python_version(),
        "device": devices[0].device_kind,
        "devices": len(devices),
        "processes": jax.process_count(),
    }
