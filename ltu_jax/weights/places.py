"""Where weights lie, as people give it: a path, hf:OWNER/NAME[@REVISION][::FILE], or gs://BUCKET/NAME.

Whatever is not on this machine is brought here first, once, and opened like anything else: by the
same checks, in the same pieces. Reading a bucket by range would save no byte, since weights are
compared with their SHA-256, and libraries of tokenizers read files. A run in a bucket stays there:
`checkpoint` reads it by part, as each device needs it.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from ltu_jax.core.bucket_copies import local_copy
from ltu_jax.core.errors import UserError
from ltu_jax.core.paths import absolute, as_path, is_remote, require_bucket
from ltu_jax.weights import hub, store

SETTINGS = ("*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja", "*.csv")
# The first of which there are any; CTranslate2 has its model.bin in parts, too.
NUMBERS = (("*.safetensors",), ("*.bin", "model.bin.*", "*.pt", "*.pth"))
ADAPTER = "adapter_model.bin"  # a LoRA of PEFT: also beside an audio part in safetensors
# Of other frameworks, in other folders; and the same numbers again.
OTHERS = ("*/*", "consolidated*", "*.fp16*", "*.fp32*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where weights are on this machine.

    path: a file or folder; of a run in a bucket its address.
    address: of what was brought here: hf:OWNER/NAME@COMMIT, gs://BUCKET/NAME. None of a local path.
    """

    path: Path
    address: str | None = None

    @property
    def named(self) -> str:
        """What messages and records call it."""
        return self.address or str(self.path)

    def with_address(self, text: str) -> str:
        """Return a text about `path` that names the address instead."""
        return text if self.address is None else text.replace(str(self.path), self.address)

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Let errors about a copy say of what it is one."""
        try:
            yield
        except UserError as error:
            if self.address is None or self.address in str(error):
                raise
            raise type(error)(f"{error} ({self.path} is a copy of {self.address})") from error


def find(
    path: str | os.PathLike, *, option: str, numbers: bool = True, runs: bool = False
) -> Place:
    """Return where the weights of a person's argument are, after they were brought here.

    Args:
        path: local, hf:OWNER/NAME[@REVISION][::FILE] or gs://BUCKET/NAME.
        option: what messages call it.
        numbers: whether the weights themselves are wanted, or settings and tokenizer alone.
        runs: whether it may be a run or checkpoint, which stays in its bucket.

    Raises:
        UserError: they are not there, may not be read, or could not be brought here.
    """
    text = os.fspath(path)
    if hub.is_name(text):
        patterns = [(*SETTINGS, ADAPTER, *kind) for kind in NUMBERS] if numbers else [SETTINGS]
        folder, name = hub.fetch(text, option=option, patterns=patterns, ignored=OTHERS)
        return Place(path=folder, address=name)
    if is_remote(text):
        address = as_path(text, option=option)
        require_bucket(address)
        if runs and not store.is_weights_dir(address):
            return Place(path=address)
        wanted = needed if numbers else settings_of
        copy = local_copy(text, option=option, choice=wanted.__name__, wanted=wanted)
        return Place(path=copy, address=text.rstrip("/"))
    return Place(path=as_path(text, option=option))


def is_elsewhere(path: str | os.PathLike) -> bool:
    """Tell whether a path is no local one."""
    return hub.is_name(os.fspath(path)) or is_remote(path)


def check(path: str | os.PathLike, *, option: str) -> None:
    """Require a path that `find` can understand; nothing is looked up.

    Raises:
        UserError: an address of another form or scheme.
    """
    if hub.is_name(os.fspath(path)):
        hub.parse(os.fspath(path), option=option)
    else:
        as_path(path, option=option)


def lasting(path: str | os.PathLike) -> str:
    """Return a path that means the same in another working folder."""
    return os.fspath(path) if hub.is_name(os.fspath(path)) else str(absolute(path))


def needed(names: Sequence[str]) -> list[str]:
    """Choose, among the names in a folder of weights, those that are read."""
    for kind in NUMBERS:
        if _matching(names, kind):
            return _matching(names, (*SETTINGS, ADAPTER, *kind))
    return settings_of(names)


def settings_of(names: Sequence[str]) -> list[str]:
    """Choose, among the names in a folder of weights, settings and tokenizer."""
    return _matching(names, SETTINGS)


def _matching(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    def is_any(name: str, of: Sequence[str]) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in of)

    return [name for name in names if is_any(name, patterns) and not is_any(name, OTHERS)]
