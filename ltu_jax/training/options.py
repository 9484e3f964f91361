"""What `config.compute` says about memory and speed, as arguments of the model and of the loss."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ltu_jax.core.errors import UserError, shorten
from ltu_jax.core.trees import Params, label
from ltu_jax.models.attention import require_platform
from ltu_jax.models.int8 import SCALE
from ltu_jax.training.stage_config import StageSettings
from ltu_jax.weights.placement import place, quantised
from ltu_jax.weights.store import check_against
from ltu_jax.weights.tensors import Tensors


def keep_compiled(folder: str) -> None:
    """Keep compiled programs in `folder` between runs; "" leaves JAX as it is configured."""
    if folder:
        jax.config.update("jax_compilation_cache_dir", folder)


@contextlib.contextmanager
def table(key: str) -> Iterator[None]:
    """Name the config key of a table of rules that does not fit the stage's parameters."""
    try:
        yield
    except UserError:
        raise  # it is about something else, and says about what
    except (ValueError, re.error) as error:
        raise UserError(
            f"config.{key}: {error}; the first pattern that matches a whole path counts, each path "
            "needs one, and each pattern a path"
        ) from error


def model_options(settings: StageSettings, *, mesh: Mesh) -> dict[str, Any]:
    """Keywords of `models.build.ltu_as`.

    Raises:
        UserError: an attention backend that is not made for the devices of `mesh`.
    """
    compute = settings.compute
    require_platform(compute.attention, mesh)
    return {
        "dtype": jnp.dtype(compute.dtype),
        "remat": compute.remat,
        "attention": compute.attention,
        "longest_pair": settings.data.cutoff,
        "mesh": mesh,
        "int8_base": compute.base_dtype == "int8",
    }


def check_trainable(settings: StageSettings, shapes: Mapping[str, Any]) -> None:
    """Require that nothing is trained which int8 has no gradient for.

    Raises:
        UserError: names the kernels, or what does not fit in the table.
    """
    scales = [path for path in shapes if path.endswith(SCALE)]
    with table("trainable"):
        trained = label(settings.trainable, shapes)
    wrong = [
        path for scale in scales for path in (scale.removesuffix(SCALE), scale) if trained[path]
    ]
    if wrong:
        raise UserError(
            f"compute.base_dtype is 'int8' but {settings.stage} trains {shorten(wrong)}; an int8 "
            "kernel has no gradient: use 'bfloat16' or 'float32', or freeze it in config.trainable"
        )


def loss_options(settings: StageSettings) -> dict[str, Any]:
    """Keywords of `training.losses.language_loss`."""
    return {"chunk": settings.compute.loss_chunk}


def base_dtypes(shapes: Mapping[str, Any], settings: StageSettings) -> dict[str, np.dtype]:
    """What each parameter of the frozen language model is kept in, by path."""
    compute = settings.compute
    if compute.base_dtype != "int8":
        return dict.fromkeys(shapes, jnp.dtype(compute.base_dtype))
    whole = jnp.dtype(compute.dtype)  # embeddings and norms
    scales = {path for path in shapes if path.endswith(SCALE)}
    return {
        path: leaf.dtype if path in scales or path + SCALE in scales else whole
        for path, leaf in shapes.items()
    }


def place_llama(
    tensors: Tensors, shapes: Mapping[str, Any], *, settings: StageSettings, mesh: Mesh, what: str
) -> Params:
    """The frozen language model on `mesh` in `compute.base_dtype`.

    Args:
        tensors: the weights by path, at any precision.
        shapes: what the model asks for; with int8 every quantised kernel has its scales there.
        settings: the stage.
        mesh: where to.
        what: how an error calls the weights.

    Raises:
        UserError: weights of another model.
    """
    scales = [path for path in shapes if path.endswith(SCALE)]
    check_against({p: leaf for p, leaf in shapes.items() if p not in scales}, tensors, what=what)
    placed = {path: leaf for path, leaf in tensors.items() if path in shapes}
    for scale in scales:
        kernel = scale.removesuffix(SCALE)
        placed[kernel], placed[scale] = quantised(tensors[kernel])
    return place(placed, mesh=mesh, dtypes=base_dtypes(shapes, settings))
