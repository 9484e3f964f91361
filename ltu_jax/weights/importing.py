"""Write what was imported: checked before and after, under its name only when it is usable."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from ltu_jax.weights import store, verify
from ltu_jax.weights.name_tables import Import
from ltu_jax.weights.tensors import DTYPES, Tensor, cast, describe_casts


@dataclasses.dataclass(frozen=True, kw_only=True)
class WrittenImport:
    """An import on disk.

    Attributes:
        sha256: of the weights directory (see `store.Weights`).
        config: of the model.
        params: its parameters, to be read from the source.
        notes: remarks for a person.
        lost: what a cast to another dtype costs; "" for nothing.
    """

    sha256: str
    config: Mapping[str, Any]
    params: Mapping[str, Tensor]
    notes: tuple[str, ...]
    lost: str


def write_import(
    imported: Import,
    kind: str,
    *,
    out: str | os.PathLike,
    subject: str,
    desc: str,
    told: Mapping[str, Any] | None = None,
    dtype: str | None = None,
) -> WrittenImport:
    """Write an import as a weights directory.

    Args:
        imported: an opened source.
        kind: of the weights.
        out: the directory to make.
        subject: how an error calls the source.
        desc: label of the progress bar.
        told: what else is known of where the numbers come from.
        dtype: store in this one of `DTYPES`; None keeps what the source has.

    Raises:
        UserError: names, shapes, numbers or a tokenizer that cannot be used; nothing is written.
    """
    config, params, notes = verify.check_import(imported, kind, subject=subject)
    wanted = None if dtype is None else DTYPES[dtype]
    sha256 = store.save_weights(
        out,
        kind=kind,
        config=config,
        params=cast(params, wanted),
        source={**imported.source, **(told or {})},
        files=imported.files,
        facts=imported.facts,
        check=lambda folder: verify.check_weights(folder, name=str(out)),
        desc=desc,
    )
    return WrittenImport(
        sha256=sha256,
        config=config,
        params=params,
        notes=imported.notes + notes,
        lost=describe_casts(params, wanted) or "",
    )
