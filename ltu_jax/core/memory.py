"""Free memory of this host and of its devices, and how much this process took."""

import os
import re
import resource
from pathlib import Path

import jax

_GROUPS = (  # control groups, version 2 and 1: limit, in use, and what of that is file cache
    ("memory.max", "memory.current", ("active_file", "inactive_file")),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes",
     ("total_active_file", "total_inactive_file")),
)  # fmt: skip
_ROOT = Path("/sys/fs/cgroup")


def available() -> int:
    """Return the bytes of host memory that this process can still take."""
    # macOS does not tell how much is free: there it is all that the machine has.
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    free = os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        if "MemAvailable" in lines:  # counts the page cache, which the system gives back
            free = int(lines["MemAvailable"].split()[0]) * 1024
    for limit_name, used_name, cached in _GROUPS:
        limit, used = _ROOT / limit_name, _ROOT / used_name
        if limit.is_file() and used.is_file() and limit.read_text().strip().isdigit():
            cache = _stat(used.parent / "memory.stat", cached)
            free = min(free, int(limit.read_text()) - int(used.read_text()) + cache)
    return max(free, 0)


def _stat(path: Path, names: tuple[str, ...]) -> int:
    if not path.is_file():
        return 0
    lines = dict(line.split() for line in path.read_text().splitlines() if line.count(" ") == 1)
    return sum(int(lines.get(name, 0)) for name in names)


def at_hand(device: jax.Device | None = None) -> int:
    """Return the bytes that arrays on `device` (None: the default one) can still take."""
    device = jax.devices()[0] if device is None else device
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return available()


def most_resident() -> int:
    """Return the most bytes of host memory that this process has held."""
    status = Path("/proc/self/status")
    if status.is_file():
        # `getrusage` would also count the process that started this one.
        peak = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if peak:
            return int(peak.group(1)) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
