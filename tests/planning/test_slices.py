"""Slices against the makers' tables, and what is said about names that do not exist."""

import pytest

from ltu_jax.core.errors import UserError
from ltu_jax.core.hardware import CHIPS, find_peak
from ltu_jax.planning.slices import SLICES, find_gpu, find_slice


@pytest.mark.parametrize(
    "name, chips, hosts, topology, gib",
    [
        ("v5e-1", 1, 1, "v5e:1x1", 16),
        ("v5e-4", 4, 1, "v5e:2x2", 16),
        ("v5e-8", 8, 1, "v5e:2x4", 16),
        ("v5e-16", 16, 4, "v5e:4x4", 16),
        ("v5e-64", 64, 16, "v5e:8x8", 16),
        ("v5e-256", 256, 64, "v5e:16x16", 16),
        ("v4-8", 4, 1, "v4:2x2x1", 32),
        ("v4-32", 16, 4, "v4:2x2x4", 32),
        ("v4-512", 256, 64, "v4:4x8x8", 32),
        ("v5p-8", 4, 1, "v5p:2x2x1", 96),
        ("v5p-16", 8, 2, "v5p:2x2x2", 96),
        ("v6e-16", 16, 4, "v6e:4x4", 32),
        ("v6e-256", 256, 64, "v6e:16x16", 32),
    ],
)
def test_chips_hosts_and_memory(name, chips, hosts, topology, gib):
    found = find_slice(name)
    assert (found.chips, found.hosts, found.topology) == (chips, hosts, topology)
    assert 0.95 * gib <= found.chip.hbm_bytes / 2**30 <= gib


def test_every_kind_goes_from_one_host_to_its_largest():
    for kind, largest in (("v4", 512), ("v5e", 256), ("v5p", 512), ("v6e", 256)):
        sizes = [int(name.split("-")[1]) for name in SLICES if name.startswith(f"{kind}-")]
        assert max(sizes) == largest and find_slice(f"{kind}-{min(sizes)}").hosts == 1


@pytest.mark.parametrize(
    ("device_kind", "peak"),
    [
        ("TPU v4", 275e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5e", 197e12),
        ("TPU v5p", 459e12),
        ("TPU v5", 459e12),
        ("TPU v6 lite", 918e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA RTX A6000", 154.8e12),
        ("cpu", None),
    ],
)
def test_a_device_has_the_peak_of_its_data_sheet(device_kind, peak):
    assert find_peak(device_kind) == peak


def test_the_clock_is_that_of_the_matrix_units():
    # Multiplications with addition per cycle: units x 128 x 128, or 256 x 256 on v6e.
    units = {"v4": 8 * 128**2, "v5e": 4 * 128**2, "v5p": 8 * 128**2, "v6e": 4 * 256**2}
    for kind, chip in CHIPS.items():
        assert chip.peak_flops == pytest.approx(2 * units[kind] * chip.clock, rel=0.005)


def test_interconnect_counts_rings_twice():
    assert find_slice("v5e-16").interconnect == 2 * 45e9  # 4x4 is open
    assert find_slice("v5e-256").interconnect == 4 * 45e9  # 16x16 is closed
    assert find_slice("v4-32").interconnect == 4 * 45e9  # 2x2x4: one, one, and a ring
    assert find_slice("v5e-1").interconnect == 0


@pytest.mark.parametrize(
    "name, message",
    [
        ("v5e-12", "no v5e-12; v5e is counted in chips: v5e-1, v5e-4, v5e-8, v5e-16"),
        ("v4-16x", "no v4-16x; v4 is counted in TensorCores, two a chip: v4-8, v4-16"),
        ("v5-16", "'v5-16' is unknown; did you mean v5"),
        ("tpu", "'tpu' is unknown; use v4, v5e, v5p, v6e and a size, as v5e-16 or v4-32"),
    ],
)
def test_unknown_slices(name, message):
    with pytest.raises(UserError, match=message):
        find_slice(name)


def test_unknown_gpu():
    with pytest.raises(UserError, match="'h300' is unknown; use one of a6000, a100, h100, h200"):
        find_gpu("h300")
