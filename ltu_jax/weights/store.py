"""Our own weights directory: config.json, params.safetensors, tokenizer files, hashes.

DIR/config.json   {"ltu_jax": 1, "kind", "config", "dtype", "sha256": {file: hex}, "source"}
                  and what the source says that no number depends on (`FACTS`), where it says it
DIR/params.safetensors            flat names; params-00001-of-0000N.safetensors above 4 GB
DIR/tokenizer.model | tokenizer.json, tokenizer_config.json, added_tokens.json ...,
                  generation.json (Whisper)
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ltu_jax.core.errors import shorten
from ltu_jax.core.files import atomic_dir, inside, sha256_file, write_json
from ltu_jax.core.outputs import Maker
from ltu_jax.core.paths import as_path
from ltu_jax.weights import makers
from ltu_jax.weights.diagnosis import complain
from ltu_jax.weights.facts import FACTS
from ltu_jax.weights.files import shards
from ltu_jax.weights.files.config_json import read_settings
from ltu_jax.weights.files.safetensors_file import read_safetensors
from ltu_jax.weights.tensors import Tensor, WeightsError, as_tensors, cast

FORMAT = 1
ADAPTER = "ltu-as-adapter"  # an LTU-AS without its base (`adapter_folder`)
KINDS = ("whisper", "llama", "ltu-as", "tltr", ADAPTER)
CONFIG = "config.json"
TOKENIZER_FILES = (
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation.json",
)


class LazyParams(Mapping[str, np.ndarray]):
    """Flat path -> array, read from the file (and cast) each time it is asked for."""

    def __init__(self, tensors: Mapping[str, Tensor], *, dtype: np.dtype | None = None):
        self._tensors = cast(tensors, dtype)

    def __getitem__(self, path: str) -> np.ndarray:
        return self._tensors[path].read()

    def __contains__(self, path: object) -> bool:
        return path in self._tensors  # the inherited one would read the array

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every shape, without reading a number."""
        return {path: tensor.shape for path, tensor in self._tensors.items()}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The lazy tensors, to be read in pieces."""
        return dict(self._tensors)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """An opened model: its config, its parameters, and where they come from.

    kind: one of `KINDS`; `config` is the dict for the `from_dict` of its config class.
    params: every parameter, read when asked; of a checkpoint those of its base too.
    path: the weights directory or the checkpoint.
    sha256: names kind, config and numbers together: models with equal `sha256` compute the same.
    tokenizer_dir: None when no tokenizer came along.
    facts: those of `FACTS` that are known.
    checkpoint: the metadata of a checkpoint; None of a weights directory.
    address: of what was brought here: hf:OWNER/NAME@COMMIT or gs://BUCKET/NAME; else None.
    base_name: what a person would call the language model below the adapter, where that is known.
    """

    kind: str
    config: dict[str, Any]
    params: LazyParams
    path: Path
    sha256: str
    tokenizer_dir: Path | None
    source: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    checkpoint: Mapping[str, Any] | None = None
    address: str | None = None
    base_name: str | None = None

    @property
    def named(self) -> str:
        """What messages and records call it."""
        return self.address or str(self.path)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Every parameter as a lazy tensor, to be read in pieces."""
        return self.params.tensors

    @property
    def max_position_embeddings(self) -> int | None:
        """How many positions the language model has; None where an older import did not say."""
        return self.facts.get("max_position_embeddings")


def identity(kind: str, config: Mapping[str, Any], hashes: Mapping[str, str]) -> str:
    """Return the `sha256` of `Weights`: of kind, config and hashes of the files of numbers."""
    suffixes = (".safetensors", ".bin")
    numbers = {name: value for name, value in hashes.items() if name.endswith(suffixes)}
    text = json.dumps([kind, dict(config), numbers], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def save_weights(
    path: str | os.PathLike,
    *,
    kind: str,
    config: Mapping[str, Any],
    params: Mapping[str, np.ndarray] | Mapping[str, Tensor],
    source: Mapping[str, Any],
    files: Iterable[str | os.PathLike] | Mapping[str, str | bytes | os.PathLike] = (),
    facts: Mapping[str, Any] | None = None,
    check: Callable[[Path], None] = lambda folder: None,
    desc: str | None = None,
    maker: Maker | None = None,
) -> str:
    """Write a weights directory; the folder appears only when it is complete.

    Args:
        path: the directory to make; weights of the same kind there are replaced as a whole.
        kind: one of `KINDS`.
        config: the model config as a plain dict (`dataclasses.asdict`).
        params: flat path -> array or lazy tensor; tensors are never held whole.
        source: where the numbers come from; free JSON for people.
        files: tokenizer files to copy, or {name in DIR: text, bytes or path}.
        facts: those of `FACTS` that are known.
        check: called with the finished folder before it takes its name; what it raises stops that.
        desc: label of the progress bar; None shows none.
        maker: who may replace what is at `path`; None is the importer of this kind.

    Returns:
        The directory's `sha256` (see `Weights`).

    Raises:
        WeightsError: an unknown kind, or no parameters.
        UserError: something else is at `path`.
    """
    facts = {} if facts is None else dict(facts)
    assert set(facts) <= set(FACTS), facts
    if kind not in KINDS:
        raise WeightsError(f"kind {kind!r} of {path} is unknown; known are {', '.join(KINDS)}")
    tensors = as_tensors(params)
    if not tensors:
        raise WeightsError(f"no parameters to write to {path}")
    if not isinstance(files, Mapping):
        files = {Path(file).name: Path(file) for file in files}
    dtypes = {tensor.dtype.name for tensor in tensors.values()}
    with atomic_dir(path, maker or makers.imported(kind)) as folder:
        _, hashes = shards.write_shards(
            folder,
            tensors,
            stem="params",
            metadata={"format": "ltu_jax"},
            max_bytes=shards.SHARD_BYTES,
            desc=desc,
        )
        for name, content in files.items():
            if isinstance(content, str):
                (folder / name).write_text(content, encoding="utf-8")
            elif isinstance(content, bytes):
                (folder / name).write_bytes(content)
            else:
                shutil.copyfile(content, folder / name)
            hashes[name] = sha256_file(folder / name)
        write_json(
            folder / "config.json",
            {
                "ltu_jax": FORMAT,
                "kind": kind,
                "config": dict(config),
                "dtype": dtypes.pop() if len(dtypes) == 1 else "mixed",
                "sha256": hashes,
                "source": dict(source),
                **facts,
            },
        )
        check(folder)
    return identity(kind, config, hashes)


def json_text(value: Any) -> str:
    """Return JSON as `core.files.write_json` writes it, for a file of a weights directory."""
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def is_weights_dir(path: str | os.PathLike) -> bool:
    """Return whether `path` is one of our weights directories."""
    config = as_path(path) / "config.json"
    return config.is_file() and "ltu_jax" in read_settings(config)


def read_header(path: str | os.PathLike) -> dict[str, Any]:
    """Return config.json of a weights directory.

    Raises:
        WeightsError: no such directory, not ours, or written by a newer version.
    """
    path = as_path(path)
    if not path.is_dir():
        raise WeightsError(
            f"weights directory {path} does not exist; make it with "
            "`python -m ltu_jax.convert --from ... --out DIR`"
        )
    if not (path / "config.json").is_file():
        raise WeightsError(f"{path} is not a weights directory: it has no config.json")
    header = read_settings(path / "config.json")
    if "ltu_jax" not in header:
        stated = header.get("model_type")
        kind = f" (a Hugging Face directory of model_type {stated!r})" if stated else ""
        raise WeightsError(
            f"{path} is not a weights directory of ltu_jax{kind}; import it first with "
            "`python -m ltu_jax.convert --from ... --weights "
            f"{path} --out DIR`"
        )
    if header["ltu_jax"] != FORMAT or "kind" not in header:
        raise WeightsError(
            f"{path}/config.json is of format {header['ltu_jax']!r}; this version reads {FORMAT}"
        )
    for key, kind in (("kind", str), ("config", dict), ("sha256", dict), ("source", dict)):
        if not isinstance(header.get(key), kind):
            raise WeightsError(f"{path}/config.json is damaged: its {key} is {header.get(key)!r}")
    positions, ends = header.get("max_position_embeddings", 1), header.get("end_tokens", [])
    right = {
        "max_position_embeddings": type(positions) is int and positions > 0,
        "end_tokens": isinstance(ends, list) and all(type(end) is int for end in ends),
        "source_config": isinstance(header.get("source_config", {}), dict),
        "source_generation_config": isinstance(header.get("source_generation_config", {}), dict),
    }
    for key in [key for key in FACTS if not right[key]]:
        raise WeightsError(f"{path}/config.json is damaged: its {key} is {str(header[key])[:80]}")
    for name, digest in header["sha256"].items():
        inside(path, name, where=path / "config.json", error=WeightsError)
        if not isinstance(digest, str):
            raise WeightsError(
                f"{path}/config.json is refused: it names the file {name!r} with hash {digest!r}"
            )
    return header


def load_weights(
    path: str | os.PathLike,
    *,
    kind: str | None = None,
    dtype: Any = None,
    verify: bool = True,
) -> Weights:
    """Open a weights directory.

    Args:
        path: the directory.
        kind: refuse any other kind.
        dtype: cast every parameter when it is read; None keeps the stored dtype.
        verify: hash every file and compare with config.json.

    Raises:
        WeightsError: missing, of another kind, a file missing, truncated or changed.
    """
    path = Path(path)
    header = read_header(path)
    if kind is not None and header["kind"] != kind:
        raise WeightsError(f"{path} holds {header['kind']!r} weights, expected {kind!r}")
    hashes = header["sha256"]
    absent = [name for name in hashes if not (path / name).is_file()]
    if absent:
        raise WeightsError(f"{path} lacks {shorten(absent)}; convert the weights again")
    if verify:
        big = sum((path / name).stat().st_size for name in hashes) > 2 << 30
        for name in tqdm(hashes, desc=f"checking {path.name}", disable=not big):
            shards.check_sha256(path / name, expected=hashes[name], known=True)
    tensors: dict[str, Tensor] = {}
    for name in hashes:
        if name.startswith("params") and name.endswith(".safetensors"):
            tensors.update(read_safetensors(path / name))
    has_tokenizer = any((path / name).is_file() for name in ("tokenizer.model", "tokenizer.json"))
    return Weights(
        kind=header["kind"],
        config=header["config"],
        params=LazyParams(
            dict(sorted(tensors.items())), dtype=None if dtype is None else np.dtype(dtype)
        ),
        path=path,
        sha256=identity(header["kind"], header["config"], hashes),
        tokenizer_dir=path if has_tokenizer else None,
        source=header["source"],
        facts={key: header[key] for key in FACTS if key in header},
    )


def check_against(
    shapes: Mapping[str, Any], params: Mapping[str, Any], *, subject: str = "the weights"
) -> None:
    """Require `params` to have exactly the paths and shapes the model asks for.

    Args:
        shapes: path -> anything with `.shape` (`model.shapes`), or a shape tuple.
        params: path -> array; a `LazyParams` is checked without reading it.
        subject: how the message calls `params`, e.g. their directory.

    Raises:
        WeightsError: missing, surplus or mis-shaped parameters, first ten and count of each, with
            the likely cause.
    """
    wanted = {path: _shape(leaf) for path, leaf in shapes.items()}
    stated = (
        params.shapes
        if isinstance(params, LazyParams)
        else {path: _shape(leaf) for path, leaf in params.items()}
    )
    problem = complain(wanted=wanted, found=stated, subject=subject)
    if problem:
        raise WeightsError(problem)


def _shape(leaf: Any) -> tuple[int, ...]:
    return tuple(getattr(leaf, "shape", leaf))
