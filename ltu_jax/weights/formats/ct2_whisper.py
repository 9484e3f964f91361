"""Whisper in CTranslate2 packages: the `model.bin` container and its table of names.

Queries, keys and values of self-attention are one matrix there, keys and values of
cross-attention another; the missing key bias is stored as zeros.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from ltu_jax.weights.files import ct2_file
from ltu_jax.weights.files.config_json import read_settings
from ltu_jax.weights.formats.hf_whisper import config_from_shapes
from ltu_jax.weights.formats.whisper_tokens import tokenizer_files
from ltu_jax.weights.name_tables import LINEAR, SAME, Import, NameRule, convolutions, fused, rule
from ltu_jax.weights.tensors import Tensor, WeightsError, damaged


def _rules() -> tuple[NameRule, ...]:
    def norm(foreign: str, ours: str) -> tuple[NameRule, ...]:
        return (
            rule(f"{foreign}/gamma", f"{ours}.scale", SAME),
            rule(f"{foreign}/beta", f"{ours}.bias", SAME),
        )

    def linear(foreign: str, *ours: str, key: str | None = None) -> tuple[NameRule, ...]:
        """Return the rules of one matrix, perhaps fused; the bias of a key is stored as zeros."""
        return (
            NameRule(
                f"{foreign}/weight", tuple(f"{p}.kernel" for p in ours), fused(len(ours), LINEAR)
            ),
            NameRule(
                f"{foreign}/bias",
                tuple(None if p == key else f"{p}.bias" for p in ours),
                fused(len(ours), SAME),
            ),
        )

    def side(
        name: str, embedding: Sequence[NameRule], cross: bool, final: str
    ) -> tuple[NameRule, ...]:
        foreign, ours = f"{name}/layer_{{layer}}", f"{name}.blocks"
        own, other = f"{ours}.attn", f"{ours}.cross_attn"
        crossing = (
            *norm(f"{foreign}/attention/layer_norm", f"{ours}.cross_attn_ln"),
            *linear(f"{foreign}/attention/linear_0", f"{other}.query"),
            *linear(
                f"{foreign}/attention/linear_1",
                f"{other}.key", f"{other}.value", key=f"{other}.key",
            ),
            *linear(f"{foreign}/attention/linear_2", f"{other}.out"),
        )  # fmt: skip
        return (
            *embedding,
            rule(f"{name}/position_encodings/encodings", f"{name}.positions", SAME),
            *norm(f"{foreign}/self_attention/layer_norm", f"{ours}.attn_ln"),
            *linear(
                f"{foreign}/self_attention/linear_0",
                f"{own}.query", f"{own}.key", f"{own}.value", key=f"{own}.key",
            ),
            *linear(f"{foreign}/self_attention/linear_1", f"{own}.out"),
            *(crossing if cross else ()),
            *norm(f"{foreign}/ffn/layer_norm", f"{ours}.mlp_ln"),
            *linear(f"{foreign}/ffn/linear_0", f"{ours}.mlp.up"),
            *linear(f"{foreign}/ffn/linear_1", f"{ours}.mlp.down"),
            *norm(f"{name}/layer_norm", f"{name}.{final}"),
        )  # fmt: skip

    convs = convolutions("encoder/{}/", "encoder")
    embedding = rule("decoder/embeddings/weight", "decoder.embedding", SAME)
    return side("encoder", convs, False, "ln_post") + side("decoder", [embedding], True, "ln")


RULES = _rules()

# scalar settings of the graph: the value that our Whisper computes
_SETTINGS = {
    "decoder/activation": 3,  # GELU with erf
    "decoder/alibi": 0,
    "decoder/pre_norm": 1,
    "decoder/scale_embeddings": 0,
    "decoder/start_from_zero_embedding": 0,
}
SPEC = "WhisperSpec"
_SIDES = ("encoder", "decoder")
_IGNORED = ("decoder/alignment_heads", "decoder/alignment_layer")  # word timing only


def model_files(paths: Sequence[Path]) -> list[Path]:
    """Return the pieces of model.bin in their order.

    Raises:
        WeightsError: there is none.
    """
    pieces = sorted(
        (
            piece
            for path in paths
            for piece in (path.glob("model.bin*") if path.is_dir() else [path])
        ),
        key=lambda piece: piece.name,
    )
    absent = [piece for piece in pieces if not piece.is_file()]
    if absent or not pieces:
        raise WeightsError(f"{absent[0] if absent else paths[0]}: no CTranslate2 model.bin there")
    return pieces


def _scalar(tensors: dict[str, Tensor], name: str, *, path: Path) -> int | None:
    """Take a setting out of the tensors; None when the file does not have it."""
    tensor = tensors.pop(name, None)
    if tensor is None:
        return None
    if math.prod(tensor.shape) != 1:
        raise damaged(path, f"{name} {list(tensor.shape)} is not one number")
    return int(tensor.read().reshape(()))


def from_ct2(paths: Sequence[str | Path], *, sha256: str | None = None) -> Import:
    """Open a CTranslate2 Whisper package.

    Args:
        paths: a `model.bin`, a directory with one, or the parts of a split one (files or
            directories with `model.bin.part1`, `.part2`) in any order.
        sha256: expected hash of the (joined) model.bin.

    Raises:
        WeightsError: missing files, damage, quantised weights, or another architecture.
    """
    paths = [Path(path) for path in paths]
    folders = [path if path.is_dir() else path.parent for path in paths]
    pieces = model_files(paths)
    digest = ct2_file.sha256(pieces)
    if sha256 is not None and digest != sha256.lower():
        raise damaged(pieces[0], f"its sha256 is not {sha256}")
    model = ct2_file.read_model(pieces)
    if model.spec != SPEC:
        raise WeightsError(f"{pieces[0]} is a CTranslate2 {model.spec}, expected {SPEC}")
    if model.quantised is not None:
        raise WeightsError(f"{pieces[0]}: {model.quantised} is quantised; use the float16 package")
    if model.aliases != {"decoder/projection/weight": "decoder/embeddings/weight"}:
        raise WeightsError(
            f"{pieces[0]}: unexpected aliases {model.aliases}; the output must be tied"
        )
    tensors = dict(model.tensors)
    for name, wanted in _SETTINGS.items():
        value = _scalar(tensors, name, path=pieces[0])
        if value not in (None, wanted):
            raise WeightsError(f"{pieces[0]}: {name} is {value}, Whisper has {wanted}")
    for name in _IGNORED:
        tensors.pop(name, None)
    heads = [_scalar(tensors, f"{side}/num_heads", path=pieces[0]) for side in _SIDES]
    if None in heads:
        raise WeightsError(f"{pieces[0]} does not say its num_heads")
    config = config_from_shapes(
        {name: tensor.shape for name, tensor in tensors.items()},
        names=(
            "encoder/conv1/weight", "encoder/position_encodings/encodings",
            "decoder/embeddings/weight", "decoder/position_encodings/encodings",
        ),
        depth=lambda side: sum(
            name.startswith(f"{side}/layer_") and name.endswith("/ffn/linear_0/weight")
            for name in tensors
        ),
        heads=(heads[0], heads[1]),
        subject=str(pieces[0]),
    )  # fmt: skip
    settings = next((f / "config.json" for f in folders if (f / "config.json").is_file()), None)
    stated = read_settings(settings) if settings else {}
    files, notes = tokenizer_files(
        folders, config,
        suppress=stated.get("suppress_ids"), begin=stated.get("suppress_ids_begin"),
    )  # fmt: skip
    return Import(
        config=config,
        rules=RULES,
        tensors=tensors,
        files=files,
        source={"format": "ct2-whisper", "files": [piece.name for piece in pieces],
                "sha256": digest},
        notes=notes,
    )  # fmt: skip
