"""What somebody mixed up, told from tensor names and shapes alone."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ltu_jax.core.errors import shorten

Shapes = Mapping[str, tuple[int, ...]]


def complain(*, wanted: Shapes, found: Shapes, subject: str) -> str:
    """Describe how `found` differs from `wanted`; "" when it does not.

    First ten and count of the missing, the surplus and the mis-shaped names, and the likely cause.
    """
    missing = set(wanted) - set(found)
    surplus = set(found) - set(wanted)
    wrong = [
        f"{name} is {list(found[name])}, expected {list(wanted[name])}"
        for name in wanted
        if name in found and tuple(found[name]) != tuple(wanted[name])
    ]
    parts = [
        f"{len(names)} {kind}: {shorten(names)}"
        for names, kind in ((missing, "missing"), (surplus, "surplus"), (wrong, "of another shape"))
        if names
    ]
    if not parts:
        return ""
    cause = likely_cause(wanted=wanted, found=found)
    return (
        f"{subject} do not fit. " + "; ".join(parts) + (f". Likely cause: {cause}" if cause else "")
    )


# --- what the names and shapes tell ---------------------------------------------------------------

LLAMA_WIDTHS = {3200: "3B", 4096: "7B", 5120: "13B", 6656: "30B", 8192: "65B"}
_WHISPER_WIDTHS = {384: "tiny", 512: "base", 768: "small", 1024: "medium", 1280: "large"}
# telling names of architectures that people hand in by mistake
_SIGNATURES = (
    ("gpt2", r"(transformer\.)?h\.\d+\.attn\.c_attn\.weight"),
    ("gpt_neox", r"(gpt_neox\.)?layers\.\d+\.attention\.query_key_value\.weight"),
    ("bert", r"(bert\.)?encoder\.layer\.\d+\.attention\.self\.query\.weight"),
    ("t5", r"encoder\.block\.\d+\.layer\.0\.SelfAttention\.q\.weight"),
    ("whisper", r"(model\.)?encoder\.conv1\.weight"),
    ("llama", r"(model\.)?layers\.\d+\.self_attn\.q_proj\.weight"),
)
# A size, and where it stands: (name, axis) in official, Hugging Face and our own spelling.
_EMBEDDING = r"(.*\.)?embed_tokens\.(weight|embedding)"
_HIDDEN = (
    (_EMBEDDING, 1),
    (r"(.*\.)?audio_proj\.\d+\.weight", 0),
    (r"(.*\.)?audio_proj\.kernel", 1),
    (r"(.*\.)?q_proj\.lora_A(\.default)?\.weight", 1),
)
_VOCABULARY = ((_EMBEDDING, 0),)
_AUDIO = (
    (r"(.*\.)?time_tr\.attn\.query\.(weight|kernel)", 0),
    (r"(.*\.)?audio_proj\.\d+\.weight", 1),
    (r"(.*\.)?audio_proj\.kernel", 0),
)
_RANK = (
    (r"(.*\.)?lora_A(\.default)?\.weight", 0),
    (r"(.*\.)?lora_a", -1),
)
_LORA = re.compile(r"(?:.*\.)?(\w+)\.lora_[aA](?:\.default)?(?:\.weight)?")
_TLTR = re.compile(r"(?:.*\.)?(?:time_tr|layer_tr)\..*")
_PROJECTION = re.compile(r"(?:.*\.)?audio_proj\..*")


def architecture(names: Iterable[str]) -> str | None:
    """Return the model_type whose telling names occur in `names`, or None."""
    names = [name.removeprefix("base_model.model.") for name in names]
    for model_type, pattern in _SIGNATURES:
        if any(re.fullmatch(pattern, name) for name in names):
            return model_type
    return None


def _size(shapes: Shapes, places: Iterable[tuple[str, int]]) -> int | None:
    """Return the size at the first of `places` that is among `shapes`."""
    for pattern, axis in places:
        for name, shape in shapes.items():
            if len(shape) > 1 and re.fullmatch(pattern, name):
                return shape[axis]
    return None


def _depth(names: Iterable[str]) -> int:
    """Return the highest layer number + 1 among foreign names; 0 when none is numbered."""
    numbers = (re.search(r"\.(?:layers|blk|blocks)\.(\d{1,9})\.", f".{name}") for name in names)
    return max((int(match.group(1)) + 1 for match in numbers if match), default=0)


def _matches(pattern: re.Pattern[str], names: Iterable[str]) -> bool:
    return any(pattern.fullmatch(name) for name in names)


@dataclass(frozen=True, kw_only=True)
class _Pair:
    wanted: Shapes
    found: Shapes

    def sizes(self, places: Iterable[tuple[str, int]]) -> tuple[int, int] | None:
        """Return (found, wanted) of a size where both tell it and they differ."""
        found, wanted = _size(self.found, places), _size(self.wanted, places)
        return None if None in (found, wanted) or found == wanted else (found, wanted)


# --- the causes -----------------------------------------------------------------------------------


def _other_architecture(pair: _Pair) -> str:
    found, wanted = architecture(pair.found), architecture(pair.wanted)
    if not found or not wanted or found == wanted:
        return ""
    return f"weights of another architecture: found {found}, expected {wanted}"


def _ltu(pair: _Pair) -> str:
    names = [name for name in pair.found if _PROJECTION.fullmatch(name)]
    if not names or _matches(_TLTR, pair.found):
        return ""
    # LTU puts a LayerNorm before its linear layer, both in one list
    name = max(names, key=lambda name: len(pair.found[name]))
    return (
        f"this is LTU, not LTU-AS: its {name} is {list(pair.found[name])} (LTU's audio encoder is "
        "768 wide) and it has no time_tr/layer_tr; LTU-AS for Whisper large expects [4096, 1280]"
    )


def _no_audio(pair: _Pair) -> str:
    if not (_matches(_TLTR, pair.wanted) and _matches(_PROJECTION, pair.wanted)):
        return ""
    if _matches(_TLTR, pair.found) or _matches(_PROJECTION, pair.found):
        return ""
    if _matches(_LORA, pair.found):
        return (
            "an adapter saved without the audio weights (TLTR and projection), as the official "
            "finetune.py's adapter_model.bin; the trainer's checkpoint-N/pytorch_model.bin has them"
        )
    if architecture(pair.found) == "llama":
        return "this is a plain language model, without TLTR, projection and LoRA"
    return ""


def _width(pair: _Pair) -> str:
    sizes = pair.sizes(_HIDDEN)
    if sizes is None:
        return ""
    return "this is a {} checkpoint over a {} base".format(
        *(LLAMA_WIDTHS.get(size, f"width-{size}") for size in sizes)
    )


def _whisper_size(pair: _Pair) -> str:
    sizes = pair.sizes(_AUDIO)
    if sizes is None:
        return ""
    here, there = (
        f"{size} wide (Whisper {_WHISPER_WIDTHS[size]})"
        if size in _WHISPER_WIDTHS
        else f"{size} wide"
        for size in sizes
    )
    return f"its TLTR is for another Whisper: {here}, expected {there}"


def _vocabulary(pair: _Pair) -> str:
    sizes = pair.sizes(_VOCABULARY)
    if sizes is None:
        return ""
    here, there = sizes
    why = ""
    if abs(here - there) == 1:
        larger = "it" if here > there else "what is expected"
        why = f"; {larger} has a pad token more, as Alpaca-style fine-tunes and Vicuna v0 add one"
    return f"another vocabulary: {here} rows, expected {there}{why}"


def _layers(pair: _Pair) -> str:
    here, there = _depth(pair.found), _depth(pair.wanted)
    if not here or not there or here == there:
        return ""
    return f"it has {here} layers, expected {there}"


def _lora(pair: _Pair) -> str:
    here, there = (
        {match.group(1) for name in shapes if (match := _LORA.fullmatch(name))}
        for shapes in (pair.found, pair.wanted)
    )
    if there and not here:
        return (
            "it has no LoRA on these projections; a stage-1 checkpoint has none at all, only TLTR "
            "and projection"
        )
    if here and not there:
        return f"it has LoRA on {', '.join(sorted(here))}, expected none, as after stage 1"
    if here != there:
        return f"it has LoRA on {', '.join(sorted(here))}, expected {', '.join(sorted(there))}"
    ranks = pair.sizes(_RANK)
    return "" if ranks is None else "its LoRA is of rank {}, expected {}".format(*ranks)


def _incomplete(pair: _Pair) -> str:
    missing = set(pair.wanted) - set(pair.found)
    if missing and not set(pair.found) - set(pair.wanted):
        return "part of the weights was not saved or not downloaded"
    return ""


# The first that has something to say is the one that is told.
_CAUSES: tuple[Callable[[_Pair], str], ...] = (
    _other_architecture,
    _ltu,
    _no_audio,
    _width,
    _whisper_size,
    _vocabulary,
    _layers,
    _lora,
    _incomplete,
)


def likely_cause(*, wanted: Shapes, found: Shapes) -> str:
    """Guess what somebody mixed up, from names and shapes alone; "" when nothing comes to mind."""
    pair = _Pair(wanted=wanted, found=found)
    return next((cause for test in _CAUSES if (cause := test(pair))), "")
