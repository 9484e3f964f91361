"""What a stage starts from: base weights on the mesh, and an adapter from the stage before."""

import functools
import os
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ltu_jax.core.axes import Array
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json
from ltu_jax.core.trees import Params, shorten
from ltu_jax.stages.parts import Stage, is_adapter
from ltu_jax.training import checkpoint
from ltu_jax.training.state import put_params
from ltu_jax.weights.store import check_against, load_weights

# What each stage must find where it starts from (prefixes of parameter paths).
INHERITED = {"stage1": ("tltr.",), "stage2": ("tltr.", "audio_proj."), "stage3": ("",)}


def starting_adapter(stage: Stage, *, resume: bool) -> Params:
    """Initial adapter parameters: random ones, and over them what the stage inherits.

    Raises:
        UserError: nothing to start from (unless allow_random_tltr), a checkpoint without the
            needed parameters or of another size.
    """
    settings = stage.settings
    shapes = {path: leaf for path, leaf in stage.fns.shapes.items() if is_adapter(path)}
    # Only the adapter is asked of the initialiser, so XLA never makes a random 7B base.
    random = _init(jax.random.key(settings.seed), init=stage.fns.init, paths=tuple(shapes))
    adapter = {path: np.asarray(leaf, np.float32) for path, leaf in random.items()}
    if resume or settings.stage == "tagging" and not settings.init_from:
        return adapter
    source = settings.weights.tltr if settings.stage == "stage1" else ""
    source = source or settings.init_from
    if not source and settings.allow_random_tltr:
        return adapter
    if not source:
        raise UserError(
            f"{settings.stage} would start from a TLTR that has learned nothing. Give its weights "
            "(--config.weights.tltr=DIR), a run to start from (--config.init_from=RUN; "
            "configs/tagging.py trains a TLTR), or ask for it: --config.allow_random_tltr=True"
        )
    saved = read_adapter(source)
    wanted = INHERITED.get(settings.stage, ("tltr.",))
    must = {path: leaf for path, leaf in shapes.items() if path.startswith(wanted)}
    if settings.stage == "stage2":
        must = {path: leaf for path, leaf in must.items() if ".lora_" not in path}
    found = {path: list(leaf.shape) for path, leaf in saved.items()}
    checkpoint.check_sizes(found, must, where=source)
    shared = {path: leaf for path, leaf in shapes.items() if path in saved}
    checkpoint.check_sizes(found, shared, where=source)
    surplus = [p for p in saved if p not in shapes and not p.startswith(("label_head.", "tltr."))]
    if surplus:
        raise UserError(
            f"{source} has {len(surplus)} parameters that {settings.stage} has no place for: "
            f"{shorten(surplus)}; start from a run of the stage before, with the same model config"
        )
    return {**adapter, **{path: saved[path] for path in shared}}


@functools.partial(jax.jit, static_argnames=("init", "paths"))
def _init(key: Array, *, init: Callable[[Array], Params], paths: tuple[str, ...]) -> Params:
    made = init(key)
    return {path: made[path] for path in paths}


def read_adapter(source: str | os.PathLike) -> Params:
    """Adapter parameters of a run, a checkpoint, or an LTU-AS or TLTR weights folder."""
    path = Path(source)
    if (path / "config.json").is_file() and "kind" in read_json(path / "config.json"):
        header = read_header(path)
        weights = load_weights(path, kind=header["kind"], dtype=np.float32)
        return {name: weights.params[name] for name in weights.params if is_adapter(name)}
    return checkpoint.load_adapter(path)[1]


def place_bases(stage: Stage) -> Params:
    """Base parameters on the mesh: LLaMA in the compute dtype; the encoder if the step runs it."""
    settings, bases = stage.settings, stage.bases
    placed: Params = {}
    if bases.llama is not None:
        wanted = {p: leaf for p, leaf in stage.fns.shapes.items() if not is_adapter(p)}
        check_against(wanted, bases.llama.params, what=str(bases.llama.path))
        dtypes = dict.fromkeys(wanted, jnp.dtype(settings.compute.dtype))
        placed |= put_params(bases.llama.params, mesh=stage.mesh, dtypes=dtypes)
    if settings.data.features == "on_the_fly":
        names = [name for name in bases.whisper.params if name.startswith("encoder.")]
        encoder = {f"whisper.{name}": bases.whisper.params[name] for name in names}
        dtypes = dict.fromkeys(encoder, jnp.dtype(settings.compute.encoder_dtype))
        placed |= put_params(encoder, mesh=stage.mesh, dtypes=dtypes)
    return placed
