"""Ways to damage the records of the tiny corpus, and what the batches must then be."""

import numpy as np

from data_pipelines.input.data_config import DataConfig
from data_pipelines.input.pipeline import InputPipeline
from data_pipelines.input.rows import COLUMNS
from data_pipelines.records import record_files
from ltu_jax.models.text_batch import TARGET_IDS, with_targets
from tests.support import records_corpus
from tests.support.targets import with_labels

A = 25
VICTIM = "train_4"  # five pairs
FLIPPED = "checksum differs"

LAYOUTS = {
    "single": dict(layout="single"),
    "reference": dict(layout="reference"),
    "grouped": dict(layout="grouped", pairs_per_clip=2),
    "packed": dict(layout="grouped", pairs_per_clip=3, clips_per_row=2, row_tokens=300),
}


def open_pipeline(directory, tokenizer, *, log=None, host=(0, 1), **changes) -> InputPipeline:
    values = dict(
        records=str(directory), split="train", cutoff=120, pairs_per_clip=1, clips_per_row=1,
        rows_per_batch=4, train_on="all", features="on_the_fly", seed=3, audio_tokens=A,
        n_mels=80, max_bad_share=0.2,
    )  # fmt: skip
    return InputPipeline(
        DataConfig(**values | changes),
        tokenizer=tokenizer,
        process_index=host[0],
        process_count=host[1],
        bad_log=log,
    )


def place_of(directory, clip_id=VICTIM):
    store = record_files.RecordStore(directory, split="train")
    entry = next(entry for entry in store.entries if entry.clip_id == clip_id)
    return record_files.shard_path(directory, entry.shard), entry


def flip(directory, clip_id=VICTIM, *, at=None):
    path, entry = place_of(directory, clip_id)
    content = bytearray(path.read_bytes())
    content[entry.offset + (entry.length // 2 if at is None else at)] ^= 4
    path.write_bytes(content)


def wrong_schema(directory, clip_id=VICTIM):
    records_corpus.tamper(directory, clip_id, lambda fields: fields.pop("pairs/output"))


def not_utf8(directory, clip_id=VICTIM):
    def change(fields):
        fields["spoken_text"].bytes_list.value[0] = b"\xff\xfe"

    records_corpus.tamper(directory, clip_id, change)


def no_audio(directory, clip_id=VICTIM):
    def change(fields):
        fields["audio"].bytes_list.value[0] = b""

    records_corpus.tamper(directory, clip_id, change)


def shortened(directory, clip_id=VICTIM):
    def change(fields):  # the audio is half of what the record states
        fields["seconds"].float_list.value[0] *= 2

    records_corpus.tamper(directory, clip_id, change)


def voiceless(directory, clip_id=VICTIM):
    def change(fields):  # not blank, but nothing in the vocabulary
        answers = fields["pairs/output"].bytes_list.value
        answers[min(2, len(answers) - 1)] = b"</s>"

    records_corpus.tamper(directory, clip_id, change)


# By a part of the reason that is given.
DAMAGES = {
    FLIPPED: flip,
    "field 'pairs/output' is missing": wrong_schema,
    "field 'spoken_text' is not UTF-8": not_utf8,
    "field 'audio' is b''": no_audio,
    "field 'seconds' is 1, but the audio lasts 0.5 s": shortened,
}


def blanked(batch, pipeline, step, *, tokenizer, victims=(VICTIM,), host=(0, 1)):
    """The batch of whole records with the victims' places emptied by hand."""
    places = batch[TARGET_IDS].shape[1]
    batch = {name: leaf.copy() for name, leaf in with_labels(batch).items()}
    share = pipeline.config.rows_per_batch // host[1]
    for row in range(share):
        position = step * pipeline.config.rows_per_batch + host[0] * share + row
        segment = 0
        for place, (clip, pairs) in enumerate(pipeline.contents(position)):
            for _ in pairs:
                segment += 1
                if clip not in victims:
                    continue
                mine = batch["segment_ids"][row] == segment
                assert mine.any()
                fill = {**COLUMNS, "input_ids": tokenizer.pad_id}
                for name in set(batch) & set(fill):
                    values = batch[name][row]
                    if name == "positions":
                        if pipeline.config.layout != "grouped":
                            continue  # counts the padding too
                        values = values[-len(mine) :]
                    values[mine] = fill[name]
            if clip in victims:
                heard = batch["log_mel"][row]
                (heard[place] if pipeline.config.clips_per_row > 1 else heard)[...] = 0
    return with_targets(batch, most=places)


def assert_same(found, wanted):
    assert set(found) == set(wanted)
    for name in wanted:
        assert found[name].dtype == wanted[name].dtype, name
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)
