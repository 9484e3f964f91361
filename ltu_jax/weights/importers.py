"""The table of formats: what opens each, what it becomes, and what may be said about it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ltu_jax.core.errors import UserError
from ltu_jax.weights.files import shards
from ltu_jax.weights.formats import (
    ct2_whisper,
    gguf_llama,
    hf_llama,
    hf_whisper,
    official_ltu_as,
    openai_whisper,
    orbax,
    peft_adapter,
    whisper_at,
)
from ltu_jax.weights.name_tables import Import


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What a person may say about a source besides where it is; None where nothing was said.

    The metadata of a field are the words of the command line (`convert`).
    """

    tokenizer: Path | None = field(
        default=None,
        metadata={
            "metavar": "PATH",
            "help": "openai-whisper: tokenizer.json, a folder with one, or OpenAI's .tiktoken "
            "file; without it the weights encode but do not transcribe. gguf: the folder of the "
            "model's own tokenizer, in place of the one in the file",
        },
    )
    labels: Path | None = field(
        default=None,
        metadata={
            "metavar": "CSV",
            "help": "whisper-at: AudioSet's class_labels_indices.csv (default: the one beside the "
            "file)",
        },
    )
    sha256: str | None = field(
        default=None, metadata={"metavar": "HEX", "help": "expected hash of the weight file"}
    )
    audio_layers: int | None = field(
        default=None,
        metadata={
            "metavar": "W",
            "help": "ltu-as, peft, whisper-at: layers of the Whisper encoder (default: by TLTR's "
            "width)",
        },
    )
    lora_alpha: float | None = field(
        default=None,
        metadata={
            "metavar": "ALPHA",
            "help": "ltu-as: LoRA alpha (default: of our export, of --llama, of "
            "adapter_config.json, else 16 for rank 8 on q_proj and v_proj)",
        },
    )
    max_positions: int | None = field(
        default=None,
        metadata={
            "metavar": "N",
            "help": "hf-llama, gguf: use the model up to N positions only (default: all that it "
            "has); a sliding window changes nothing below its length",
        },
    )
    weights_file: str | None = field(
        default=None,
        metadata={
            "metavar": "NAME",
            "help": "hf-llama, hf-whisper, ltu-as: which weights to read where a directory has "
            "several, for example model.safetensors or model.safetensors.index.json",
        },
    )
    llama: Path | None = field(
        default=None,
        metadata={
            "metavar": "DIR_OR_CONFIG",
            "help": "import of ltu-as or peft: config.json or directory of the base; must hold the "
            "base weights when --weights has only the trained part",
        },
    )


@dataclass(frozen=True, kw_only=True)
class Format:
    """How a foreign format is opened.

    kind: of the weights directory it becomes.
    open: (paths, options) -> Import; `paths` has one entry unless `parts`.
    description: the format in words.
    takes: the options that mean something here, besides sha256.
    parts: whether a source may lie in several files.
    """

    kind: str
    open: Callable[[Sequence[Path], ImportOptions], Import]
    description: str
    takes: tuple[str, ...] = ()
    parts: bool = False


FORMATS: dict[str, Format] = {
    "openai-whisper": Format(
        kind="whisper",
        open=lambda paths, o: openai_whisper.from_openai(paths[0], tokenizer=o.tokenizer),
        description="OpenAI Whisper .pt, any size",
        takes=("tokenizer",),
    ),
    "hf-whisper": Format(
        kind="whisper",
        open=lambda paths, o: hf_whisper.from_hf(paths[0], weights_file=o.weights_file),
        description="Hugging Face Whisper directory",
        takes=("weights_file",),
    ),
    "ct2-whisper": Format(
        kind="whisper",
        open=lambda paths, o: ct2_whisper.from_ct2(paths, sha256=o.sha256),
        description="CTranslate2 (faster-whisper) directory or model.bin",
        parts=True,
    ),
    "whisper-at": Format(
        kind="tltr",
        open=lambda paths, o: whisper_at.from_whisper_at(
            paths[0], audio_layers=o.audio_layers, labels=o.labels
        ),
        description="Whisper-AT .pth: TL-TR with its label head, full or low",
        takes=("audio_layers", "labels"),
    ),
    "hf-llama": Format(
        kind="llama",
        open=lambda paths, o: hf_llama.from_hf(
            paths[0], max_positions=o.max_positions, weights_file=o.weights_file
        ),
        description="Hugging Face LLaMA-family directory",
        takes=("max_positions", "weights_file"),
    ),
    "gguf": Format(
        kind="llama",
        open=lambda paths, o: gguf_llama.from_gguf(
            paths[0], tokenizer=o.tokenizer, max_positions=o.max_positions
        ),
        description="GGUF file of the LLaMA architecture, dequantised",
        takes=("tokenizer", "max_positions"),
    ),
    "ltu-as": Format(
        kind="ltu-as",
        open=lambda paths, o: official_ltu_as.from_official(
            paths[0],
            base=o.llama,
            audio_layers=o.audio_layers,
            lora_alpha=o.lora_alpha,
            weights_file=o.weights_file,
        ),
        description="official LTU-AS state dict, complete or the trained part over --llama",
        takes=("llama", "audio_layers", "lora_alpha", "weights_file"),
    ),
    "peft": Format(
        kind="ltu-as",
        open=lambda paths, o: peft_adapter.from_peft(
            paths[0], base=o.llama, audio_layers=o.audio_layers
        ),
        description="PEFT adapter directory with its audio part, over --llama",
        takes=("llama", "audio_layers"),
    ),
    "orbax": Format(
        kind="ltu-as",
        open=lambda paths, o: orbax.from_run(paths[0]),
        description="a training run or checkpoint of ours, joined with its base",
    ),
}


def open_source(name: str, paths: Sequence[Path], options: ImportOptions) -> Import:
    """Open foreign weights by the name of their format.

    Raises:
        UserError: options that the format does not take or lacks; anything wrong with the source.
    """
    form = FORMATS[name]
    if len(paths) != 1 and not form.parts:
        raise UserError(f"--from {name} takes one --weights path, got {len(paths)}")
    for option in vars(options):
        if getattr(options, option) is not None and option not in (*form.takes, "sha256"):
            flag = f"--{option.replace('_', '-')}"
            raise UserError(f"--from {name} does not take {flag}; leave it out")
    if options.sha256 is not None and not form.parts:
        if not paths[0].is_file():
            raise UserError(f"--sha256 needs --weights to be a file; {paths[0]} is not")
        shards.check_sha256(paths[0], expected=options.sha256)
    return form.open(paths, options)
