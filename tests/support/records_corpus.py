"""A tiny corpus of tones in noise, and ways to damage the records made of it."""

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from data_pipelines.input.token_counts import token_lengths
from data_pipelines.records import record_files
from data_pipelines.records.schema import AnnotatedClip, QAPair
from data_pipelines.records.write import write_records
from ltu_jax.preprocessing.text import load_tokenizer
from tests.support import shared

LABELS = ("noise", "speech", "tone")
TOKENIZER = Path(__file__).resolve().parents[1] / "golden" / "text_cases" / "spm320.model"


def samples(number: int, *, seconds: float) -> np.ndarray:
    """A tone in noise, float32 at 16 kHz, different for each clip."""
    rng = np.random.default_rng(number)
    time = np.arange(int(seconds * 16000)) / 16000
    tone = 0.3 * np.sin(2 * np.pi * 50 * (1 + number) * time)
    return (tone + 0.1 * rng.standard_normal(len(time))).astype(np.float32)


def make_clip(
    folder: Path, number: int, *, pairs: int, split: str = "train", seconds: float = 0.5
) -> AnnotatedClip:
    """One clip with its FLAC file in `folder`."""
    path = folder / f"clip{number}.flac"
    soundfile.write(path, samples(number, seconds=seconds), 16000, subtype="PCM_16")
    return AnnotatedClip(
        clip_id=f"{split}_{number}",
        audio=path,
        sample_rate=16000,
        seconds=seconds,
        spoken_text="" if number % 3 == 0 else f"word number {number}",
        dataset="mini_speech" if number % 2 else "mini_sound",
        split=split,
        synthetic=number % 4 == 0,
        tags=((), ("noise",), ("noise", "tone"))[number % 3],
        pairs=tuple(
            QAPair(
                pair_id=f"p{place}",
                instruction=f"What is heard in clip {number}, asked for the {place}. time?",
                output="noise " * (1 + 3 * place),
                task="cla_sound" if place % 2 == 0 else "open_describe",
                closed_ended=place % 2 == 0,
            )
            for place in range(pairs)
        ),
    )


def make_clips(folder: Path) -> list[AnnotatedClip]:
    """Seven training clips of 1 to 5 pairs (18 in all), two validation clips longer than 10 s."""
    folder.mkdir(parents=True, exist_ok=True)
    train = [make_clip(folder, number, pairs=1 + number % 5) for number in range(7)]
    val = [
        make_clip(folder, 100 + number, pairs=2, split="val", seconds=10.5) for number in range(2)
    ]
    return train + val


def records_dir() -> Path:
    """Return records of the clips, two shards a split, with the tokens of pairs. Read only."""
    return shared.built_once("records", _write_records) / "records"


def _write_records(folder: Path) -> None:
    out, tokenizer = folder / "records", load_tokenizer(TOKENIZER)
    write_records(make_clips(folder / "audio"), out, tag_labels=LABELS, shards=2)
    for split in ("train", "val"):
        token_lengths(out, split=split, tokenizer=tokenizer, show=False)


def tamper(directory: Path, clip_id: str, change: Callable[[Any], None]) -> None:
    """Change the stored example of one clip and make sizes and checksums fit again."""
    from tensorflow.train import Example

    for path in sorted((directory / record_files.INDEX).glob("*.jsonl")):
        header, *lines = map(json.loads, path.read_text().splitlines())
        if clip_id not in [line["clip_id"] for line in lines]:
            continue
        shard = record_files.shard_path(directory, header["file"])
        payloads = [payload for _, payload in record_files.frames(shard)]
        file = b""
        for place, line in enumerate(lines):
            if line["clip_id"] == clip_id:
                example = Example.FromString(payloads[place])
                change(example.features.feature)
                payloads[place] = example.SerializeToString()
            payload = payloads[place]
            line["offset"], line["length"] = len(file) + 12, len(payload)
            line["crc32"] = zlib.crc32(payload)
            # The two CRCs of the TFRecord frame itself are not what is tested.
            file += struct.pack("<Q4x", len(payload)) + payload + bytes(4)
        shard.write_bytes(file)
        path.write_text("".join(json.dumps(line) + "\n" for line in [header, *lines]))
        index_crc32 = zlib.crc32(path.read_bytes())
        manifest = json.loads((directory / record_files.MANIFEST).read_text())
        for split in manifest["splits"].values():
            for entry in split["shards"]:
                if entry["file"] == header["file"]:
                    entry |= {"bytes": len(file), "index_crc32": index_crc32}
        (directory / record_files.MANIFEST).write_text(json.dumps(manifest))
        return
    raise AssertionError(f"no clip {clip_id}")
