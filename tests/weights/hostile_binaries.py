"""GGUF and CTranslate2 files that lie about what they hold."""

import struct
from pathlib import Path

from hostile_corpus import HUGE, hostile, write
from hostile_folders import llama_tensors


def _string(value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(value) if length is None else length) + value


_ARCHITECTURE = _string(b"general.architecture") + struct.pack("<I", 8) + _string(b"llama")


def _gguf_file(folder: Path, *, tensors: int, fields: int, body: bytes, end: int = 0) -> Path:
    head = b"GGUF" + struct.pack("<IQQ", 3, tensors, fields)
    return write(folder / "model.gguf", head + body + bytes(end))


def _tensor_info(name: bytes, dims: tuple[int, ...], *, kind: int = 0, offset: int = 0) -> bytes:
    sizes = struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
    return _string(name) + sizes + struct.pack("<IQ", kind, offset)


def _lying_gguf(name: str, says: str = "", **settings) -> None:
    def build(folder: Path) -> Path:
        return _gguf_file(folder, **settings)

    build.__name__ = f"gguf_{name}"
    hostile("gguf", says)(build)


def _array(kind: int, length: int, content: bytes = b"") -> bytes:
    return _string(b"a") + struct.pack("<IIQ", 9, kind, length) + content


_lying_gguf("tensor_count_2_to_60", tensors=HUGE, fields=1, body=_ARCHITECTURE)
_lying_gguf("field_count_2_to_60", tensors=0, fields=HUGE, body=_ARCHITECTURE)
_lying_gguf("string_of_2_to_60", tensors=0, fields=1, body=_string(b"general.name", HUGE))
_lying_gguf("array_of_2_to_60_bytes", tensors=0, fields=1, body=_array(0, HUGE), end=64)
_lying_gguf("array_of_2_to_60_strings", tensors=0, fields=1, body=_array(8, HUGE), end=64)
_lying_gguf(
    "arrays_nested_deep",
    tensors=0, fields=1, body=_array(9, 1, struct.pack("<IQ", 9, 1) * 20_000), end=64,
)  # fmt: skip
_lying_gguf("field_twice", "twice", tensors=0, fields=2, body=_ARCHITECTURE * 2)
_lying_gguf("type_unknown", tensors=0, fields=1, body=_string(b"a") + struct.pack("<I", 99), end=64)
_lying_gguf("name_not_text", tensors=0, fields=1, body=_string(b"\xff\xfe") + bytes(16))
_lying_gguf(
    "offset_beyond_the_file",
    tensors=1, fields=1, end=4096,
    body=_ARCHITECTURE + _tensor_info(b"token_embd.weight", (8, 8), offset=1 << 50),
)  # fmt: skip
_lying_gguf(
    "shape_product_overflow",
    tensors=1, fields=1, end=4096,
    body=_ARCHITECTURE + _tensor_info(b"token_embd.weight", (1 << 63, 1 << 63)),
)  # fmt: skip
_lying_gguf(
    "dimensions_2_to_31",
    tensors=1, fields=1, end=4096,
    body=_ARCHITECTURE + _string(b"token_embd.weight") + struct.pack("<I", 1 << 31),
)  # fmt: skip
_lying_gguf(
    "tensor_type_unknown",
    tensors=1, fields=1, end=4096,
    body=_ARCHITECTURE + _tensor_info(b"token_embd.weight", (8, 8), kind=999),
)  # fmt: skip


def gguf_llama(folder: Path, **changes) -> Path:
    """A GGUF of one layer, written by the library, with metadata of any type."""
    import gguf

    writer = gguf.GGUFWriter(str(folder / "model.gguf"), "llama")
    fields = {
        "block_count": 1, "embedding_length": 8, "feed_forward_length": 16,
        "attention.head_count": 2, "attention.layer_norm_rms_epsilon": 1e-6,
    } | changes  # fmt: skip
    adders = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    adders[list] = writer.add_array
    for name, value in fields.items():
        adders[type(value)](
            name if "." in name and "attention" not in name else f"llama.{name}", value
        )
    renamed = {
        "model.embed_tokens": "token_embd", "model.layers.0": "blk.0", "model.norm": "output_norm",
        "lm_head": "output", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    for name, array in llama_tensors().items():
        for foreign, ours in sorted(renamed.items(), key=lambda item: -len(item[0])):
            name = name.replace(foreign, ours)
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "model.gguf"


def _odd_gguf(name: str, **changes) -> None:
    def build(folder: Path) -> Path:
        return gguf_llama(folder, **changes)

    build.__name__ = f"gguf_{name}"
    hostile("gguf")(build)


_odd_gguf("heads_as_text", **{"attention.head_count": "two"})
_odd_gguf("heads_as_list", **{"attention.head_count": [2, 2]})
_odd_gguf("no_heads", **{"attention.head_count": 0})
_odd_gguf("a_billion_layers", block_count=10**9)
_odd_gguf("tokenizer_of_wrong_types", **{"tokenizer.ggml.model": 7})
_odd_gguf("tokenizer_without_tokens", **{"tokenizer.ggml.model": "llama"})
_odd_gguf("special_token_out_of_range", **{
    "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": ["a", "b"],
    "tokenizer.ggml.scores": [0.0, 0.0], "tokenizer.ggml.token_type": [1, 1],
    "tokenizer.ggml.bos_token_id": 10**9,
})  # fmt: skip
_odd_gguf("tokenizer_of_unequal_lists", **{
    "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": ["a", "b"],
    "tokenizer.ggml.scores": [0.0], "tokenizer.ggml.token_type": [1, 1, 1],
})  # fmt: skip


# --- CTranslate2 ----------------------------------------------------------------------------------


def _ct2_file(folder: Path, records: bytes, *, count: int, aliases: bytes = b"\0\0\0\0") -> Path:
    head = struct.pack("<I", 6) + _name(b"WhisperSpec") + struct.pack("<II", 3, count)
    return write(folder / "model.bin", head + records + aliases)


def _name(value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<H", len(value) + 1 if length is None else length) + value + b"\0"


def _record(
    name: bytes, shape: tuple[int, ...], *, size: int, kind: int = 0, content: bytes = b""
) -> bytes:
    head = _name(name) + struct.pack(f"<B{len(shape)}I", len(shape), *shape)
    return head + struct.pack("<BI", kind, size) + content


def _lying_ct2(name: str, records: bytes, *, count: int = 1, says: str = "", **settings) -> None:
    def build(folder: Path) -> Path:
        return _ct2_file(folder, records, count=count, **settings)

    build.__name__ = f"ct2_{name}"
    hostile("ct2-whisper", says)(build)


_FOUR = _record(b"encoder/conv1/weight", (4,), size=16, content=bytes(16))
_lying_ct2("name_length_lies", _name(b"encoder", 60000), says="damaged")
_lying_ct2(
    "shape_lies", _record(b"a", (1 << 31, 1 << 31), size=16, content=bytes(16)), says="damaged"
)
_lying_ct2("size_lies", _record(b"a", (4,), size=1 << 31, content=bytes(16)), says="damaged")
_lying_ct2("count_2_to_32", _FOUR, count=(1 << 32) - 1)
_lying_ct2("rank_255", _name(b"a") + b"\xff" + bytes(2000), says="dimensions")
_lying_ct2("name_twice", _FOUR * 2, count=2, says="twice")
_lying_ct2("name_not_text", _record(b"\xff\xfe", (4,), size=16, content=bytes(16)))
_lying_ct2("alias_of_nothing", _FOUR, aliases=struct.pack("<I", 1) + _name(b"a") + _name(b"b"))
_lying_ct2("truncated", _FOUR[:-4], says="damaged")
_lying_ct2("heads_as_list", _FOUR + _record(
    b"encoder/num_heads", (2,), size=8, kind=3, content=bytes(8)
), count=2)  # fmt: skip
