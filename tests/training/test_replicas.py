"""Replicas of parameters over eight devices: one flipped bit on one of them is found."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ltu_jax.core.distributed import AgreedError
from ltu_jax.core.sharding import MeshConfig, make_mesh
from ltu_jax.training.resilience.consistency import check_replicas, checksum


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(data=2, fsdp=2, tensor=2), jax.devices())


SPECS = {
    "whole": PartitionSpec(),
    "cut": PartitionSpec("fsdp"),
    "cut_twice": PartitionSpec("tensor", "fsdp"),
    "in_pieces": PartitionSpec(("data", "fsdp", "tensor")),
}


def placed(mesh, *, wrong=None, device=0):
    """Arrays on all devices; in the part that `device` holds of `wrong` one bit is another."""
    rng, made = np.random.default_rng(0), {}
    for name, spec in SPECS.items():
        values = rng.normal(size=(16, 4)).astype(np.float32)
        sharding = NamedSharding(mesh, spec)
        parts = []
        for number, (place, index) in enumerate(
            sharding.addressable_devices_indices_map(values.shape).items()
        ):
            part = values[index].copy()
            if name == wrong and number == device:
                part.view(np.uint32)[-1, -1] ^= 1
            parts.append(jax.device_put(part, place))
        made[name] = jax.make_array_from_single_device_arrays(values.shape, sharding, parts)
    return made


@pytest.mark.parametrize(
    "names, compared",
    # Parts of each array on eight devices, without the first one of each that is alike.
    [(["whole"], 7), (["cut"], 6), (["cut_twice"], 4), (["in_pieces"], 0), (list(SPECS), 17)],
)
def test_equal_replicas_are_compared_and_agree(mesh, names, compared):
    params = {name: leaf for name, leaf in placed(mesh).items() if name in names}
    assert check_replicas(params, mesh=mesh, step=3) == compared


def test_one_device_has_nothing_to_compare():
    alone = make_mesh(MeshConfig(data=1, fsdp=1, tensor=1), jax.devices()[:1])
    leaf = jax.device_put(np.zeros((2, 2), np.float32), NamedSharding(alone, PartitionSpec()))
    assert check_replicas({"a": leaf}, mesh=alone, step=3) == 0


@pytest.mark.parametrize("wrong", ["whole", "cut", "cut_twice"])
@pytest.mark.parametrize("device", [0, 5, 7])
def test_one_bit_on_one_device_is_found(mesh, wrong, device):
    with pytest.raises(AgreedError, match=f"on all devices after 3 steps: {wrong}, on process 0"):
        check_replicas(placed(mesh, wrong=wrong, device=device), mesh=mesh, step=3)


def test_a_part_that_no_other_device_holds_has_nothing_to_agree_with(mesh):
    params = placed(mesh, wrong="in_pieces", device=3)
    assert check_replicas(params, mesh=mesh, step=3) == 17  # of the others
    assert check_replicas({"in_pieces": params["in_pieces"]}, mesh=mesh, step=3) == 0


def test_the_checksum_is_that_of_numpy_and_sees_places():
    values = np.random.default_rng(1).normal(size=(7, 5)).astype(np.float32)
    with np.errstate(over="ignore"):
        bits = values.view(np.uint32).reshape(-1)
        mixed = bits ^ (np.arange(35, dtype=np.uint32) * np.uint32(0x9E3779B9))
        mixed = mixed * np.uint32(0x85EBCA6B)
        mixed = (mixed ^ (mixed >> 13)) * np.uint32(0xC2B2AE35)
        truth = (mixed ^ (mixed >> 16)).sum(dtype=np.uint32)
    compute = jax.jit(checksum)
    assert int(compute(values)) == truth
    others = {truth.item()}
    for place in range(35):
        for bit in (0, 15, 31):
            other = values.copy()
            other.view(np.uint32).reshape(-1)[place] ^= np.uint32(1 << bit)
            others.add(int(compute(other)))
    others.add(int(compute(values[::-1])))
    assert len(others) == 1 + 35 * 3 + 1
