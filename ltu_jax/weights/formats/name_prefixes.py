"""Prefixes that a wrapper of the model leaves in the names of a state dict.

torch.compile puts `_orig_mod.` before a name, or in its middle where single layers were compiled;
DataParallel and DeepSpeed put `module.`, FSDP and checkpointing theirs; a model inside another one
has that one's attribute in front. The tensors are the model's own, so the words are taken off.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from ltu_jax.weights.tensors import WeightsError

_WRAPPERS = re.compile(
    r"(?:(?<=^)|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|"
    r"_forward_module|_fsdp_module|_ddp_module)\."
)
T = TypeVar("T")


def plain(name: str) -> str:
    """Return a name without the words of wrappers."""
    name = _WRAPPERS.sub("", name)
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name


def unwrapped(
    tensors: Mapping[str, T], *, anchors: Sequence[str], subject: str
) -> tuple[dict[str, T], tuple[str, ...]]:
    """Return state-dict entries under the names that the model itself gives them.

    Args:
        tensors: as they are in the file.
        anchors: names of which every model of this kind has one; what stands before one of them in
            all names is the prefix of an outer model.
        subject: how errors call the file.

    Returns:
        (entries, notes for the summary: what was taken off).

    Raises:
        WeightsError: two names become one, or only some names have the prefix.
    """
    inner = _renamed(tensors, {name: plain(name) for name in tensors}, subject=subject)
    notes = []
    if inner.keys() != tensors.keys():
        first = next(name for name in tensors if plain(name) != name)
        notes.append(f"names are taken without what a wrapper put into them, as in {first}")
    if any(anchor in inner for anchor in anchors):
        return inner, tuple(notes)
    prefixes = {
        name.removesuffix(anchor)
        for anchor in anchors
        for name in inner
        if name.endswith(f".{anchor}")
    }
    prefix = min(prefixes, key=len, default="")
    if not prefix:
        return inner, tuple(notes)
    others = [name for name in inner if not name.startswith(prefix)]
    if len(prefixes) > 1 or others:
        raise WeightsError(
            f"{subject}: names begin with {prefix!r}, and others do not "
            f"({(others or sorted(prefixes))[0]}): a model inside another one. Save the inner "
            "model's state_dict() on its own"
        )
    notes.append(f"all names begin with {prefix!r}, which is taken off")
    renamed = {name: name.removeprefix(prefix) for name in inner}
    return _renamed(inner, renamed, subject=subject), tuple(notes)


def _renamed(tensors: Mapping[str, T], names: Mapping[str, str], *, subject: str) -> dict[str, T]:
    made: dict[str, T] = {}
    for name, tensor in tensors.items():
        if names[name] in made:
            first = next(old for old, new in names.items() if new == names[name])
            raise WeightsError(
                f"{subject}: {first} and {name} are both {names[name]}: two copies of one model; "
                "save one of them alone"
            )
        made[names[name]] = tensor
    return made
