"""Batches against what the clips themselves say: layouts, order, hosts, and damaged records."""

import collections
import dataclasses
import shutil

import numpy as np
import pytest
import soundfile

from data_pipelines.input.data_config import DataConfig
from data_pipelines.input.pipeline import InputPipeline
from data_pipelines.records import record_files
from data_pipelines.records.schema import RecordError
from ltu_jax.core.errors import UserError
from ltu_jax.preprocessing import audio
from ltu_jax.preprocessing.text import TokenizedPair, tokenize_pair
from tests.support import records_corpus
from tests.support.collator import collate
from tests.support.targets import with_labels

A = 25
CUTOFF = 120  # cuts the longest few of the tiny corpus's pairs


def _config(records_dir, **changes) -> DataConfig:
    values = dict(
        records=str(records_dir), split="train", layout="grouped", cutoff=CUTOFF, pairs_per_clip=1,
        clips_per_row=1, rows_per_batch=4, train_on="all", features="on_the_fly", seed=3,
        audio_tokens=A, n_mels=80,
    )  # fmt: skip
    return DataConfig(**values | changes)


def _open(records_dir, tokenizer, *, process_index=0, process_count=1, **changes) -> InputPipeline:
    return InputPipeline(
        _config(records_dir, **changes),
        tokenizer=tokenizer,
        process_index=process_index,
        process_count=process_count,
    )


def _tokens(tokenizer, clip, place, *, train_on="all") -> TokenizedPair:
    pair = clip.pairs[place]
    return tokenize_pair(
        tokenizer,
        instruction=pair.instruction,
        spoken_text=clip.spoken_text,
        output=pair.output,
        cutoff=CUTOFF,
        train_on=train_on,
    )


def _same(left, right):
    assert set(left) == set(right)
    for name in left:
        assert left[name].dtype == right[name].dtype
        np.testing.assert_array_equal(left[name], right[name])


@pytest.fixture(scope="module")
def by_id(clips):
    return {clip.clip_id: clip for clip in clips}


# --- layouts --------------------------------------------------------------------------------------


def test_the_reference_layout_is_the_official_collator(records_dir, tokenizer, by_id):
    pipeline = _open(records_dir, tokenizer, layout="reference")
    for step, batch in enumerate(map(with_labels, pipeline.batches(steps=3))):
        rows = [pipeline.contents(4 * step + row)[0] for row in range(4)]
        pairs = [_tokens(tokenizer, by_id[clip], place) for clip, (place,) in rows]
        wanted = collate(pairs, pad_id=tokenizer.pad_id, audio_tokens=A)
        np.testing.assert_array_equal(batch["input_ids"], wanted.input_ids)
        np.testing.assert_array_equal(batch["labels"][:, 1:], wanted.labels[:, 1:])
        np.testing.assert_array_equal(batch["segment_ids"], wanted.attention_mask[:, A:])
        everywhere = np.arange(A + wanted.input_ids.shape[1])
        np.testing.assert_array_equal(batch["positions"], [everywhere] * 4)
        padded = int((wanted.attention_mask[:, A] == 0).sum())  # a pad position predicts BOS
        assert 0 < padded == (batch["labels"] == tokenizer.bos_id).sum()


def test_single_rows_are_padded_on_the_right_without_a_target_for_bos(
    records_dir, tokenizer, by_id
):
    pipeline = _open(records_dir, tokenizer, layout="single", train_on="answer")
    batch = with_labels(next(pipeline.batches()))
    for row in range(4):
        clip, (place,) = pipeline.contents(row)[0]
        pair = _tokens(tokenizer, by_id[clip], place, train_on="answer")
        length = len(pair.input_ids)
        padding = batch["input_ids"].shape[1] - length
        ids = pair.input_ids + [tokenizer.pad_id] * padding
        assert batch["input_ids"][row].tolist() == ids
        assert batch["labels"][row].tolist() == pair.labels + [-100] * padding
        assert batch["segment_ids"][row].tolist() == [1] * length + [0] * padding
        assert batch["positions"][row].tolist() == list(range(A + len(ids)))


def test_grouped_rows_are_their_pairs_one_after_the_other(records_dir, tokenizer, by_id):
    pipeline = _open(records_dir, tokenizer, pairs_per_clip=3)
    for step, batch in enumerate(map(with_labels, pipeline.batches(steps=3))):
        for row in range(4):
            clip, places = pipeline.contents(4 * step + row)[0]
            assert 1 <= len(places) <= 3
            ids, labels, segments, positions = [], [], [], list(range(A))
            for segment, place in enumerate(places, start=1):
                pair = _tokens(tokenizer, by_id[clip], place)
                ids += pair.input_ids
                labels += [-100, *pair.labels[1:]]
                segments += [segment] * len(pair.input_ids)
                positions += range(A, A + len(pair.input_ids))
            padding = batch["input_ids"].shape[1] - len(ids)
            assert batch["input_ids"][row].tolist() == ids + [tokenizer.pad_id] * padding
            assert batch["labels"][row].tolist() == labels + [-100] * padding
            assert batch["segment_ids"][row].tolist() == segments + [0] * padding
            assert batch["positions"][row].tolist() == positions + [0] * padding
        assert batch["input_ids"].shape[1] % 8 == 0


def test_audio_is_the_log_mel_of_the_whole_clip(records_dir, tokenizer, by_id):
    pipeline = _open(records_dir, tokenizer, split="val")  # clips of 10.5 s
    batch = next(pipeline.batches())
    assert batch["log_mel"].shape == (4, 1000, 80) and batch["log_mel"].dtype == np.float32
    for row in range(4):
        clip, _ = pipeline.contents(row)[0]
        samples, _ = soundfile.read(by_id[clip].audio, dtype="float32")
        wanted = audio.model_log_mel(samples, n_mels=80).log_mel
        np.testing.assert_array_equal(batch["log_mel"][row], wanted)


def test_tag_rows_mark_the_labels_of_each_tagged_clip(records_dir, by_id):
    pipeline = _open(records_dir, None, layout="tags")
    assert pipeline.labels == records_corpus.LABELS
    tagged = {clip.clip_id for clip in by_id.values() if clip.tags and clip.split == "train"}
    assert pipeline.rows_per_epoch == len(tagged) == 4
    batch = next(pipeline.batches())
    assert set(batch) == {"log_mel", "targets"} and batch["targets"].dtype == np.float32
    rows = [pipeline.contents(row)[0][0] for row in range(4)]
    assert set(rows) == tagged
    for row, clip in enumerate(rows):
        wanted = [float(label in by_id[clip].tags) for label in records_corpus.LABELS]
        assert batch["targets"][row].tolist() == wanted
    _same(batch, pipeline.batch(0))


@pytest.mark.parametrize("layout", ["reference", "single", "grouped"])
def test_tf_data_and_plain_python_agree(records_dir, tokenizer, layout):
    pairs = 2 if layout == "grouped" else 1
    pipeline = _open(records_dir, tokenizer, layout=layout, pairs_per_clip=pairs, train_on="answer")
    for step, batch in enumerate(pipeline.batches(steps=6)):
        _same(batch, pipeline.batch(step))


def test_padded_lengths_are_the_configured_ones(records_dir, tokenizer):
    lengths = (96, 240, 3 * CUTOFF)
    pipeline = _open(records_dir, tokenizer, pairs_per_clip=3, lengths=lengths, rows_per_batch=1)
    for batch in pipeline.batches(steps=pipeline.steps_per_epoch):
        tokens = int((batch["segment_ids"] > 0).sum())
        assert batch["input_ids"].shape[1] == min(n for n in lengths if n >= tokens)


# --- order ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pairs_per_clip", [1, 2, 3])
@pytest.mark.parametrize("group_by_length", [0, 2])
def test_every_pair_comes_once_an_epoch(
    records_dir, tokenizer, by_id, pairs_per_clip, group_by_length
):
    pipeline = _open(
        records_dir, tokenizer, pairs_per_clip=pairs_per_clip, group_by_length=group_by_length
    )
    wanted = {
        (clip.clip_id, place)
        for clip in by_id.values()
        for place in range(len(clip.pairs))
        if clip.split == "train"
    }
    epochs = []
    for epoch in range(3):
        first = epoch * pipeline.rows_per_epoch
        rows = [pipeline.contents(first + row)[0] for row in range(pipeline.rows_per_epoch)]
        seen = collections.Counter((clip, place) for clip, places in rows for place in places)
        assert set(seen) == wanted and set(seen.values()) == {1}
        assert all(len(places) <= pairs_per_clip for _, places in rows)
        epochs.append(rows)
    assert epochs[0] != epochs[1] != epochs[2]


def test_order_is_a_function_of_seed_and_step(records_dir, tokenizer):
    whole = list(_open(records_dir, tokenizer, pairs_per_clip=2).batches(steps=9))
    again = _open(records_dir, tokenizer, pairs_per_clip=2, workers=1, prefetch=1)
    again = again.batches(start_step=5, steps=4)
    for left, right in zip(whole[5:], again, strict=True):
        _same(left, right)
    other = next(_open(records_dir, tokenizer, pairs_per_clip=2, seed=4).batches())
    assert not np.array_equal(whole[0]["log_mel"], other["log_mel"])


def test_a_far_step_costs_no_more_than_the_first(records_dir, tokenizer):
    far = 10**9
    pipeline = _open(records_dir, tokenizer)
    _same(next(pipeline.batches(start_step=far)), pipeline.batch(far))


def test_without_shuffling_records_come_in_their_order(records_dir, tokenizer):
    pipeline = _open(records_dir, tokenizer, shuffle=False)
    wanted = [
        (entry.clip_id, (place,))
        for entry in pipeline.store.entries
        for place in range(len(entry.pairs))
    ]
    found = [pipeline.contents(position)[0] for position in range(2 * len(wanted))]
    assert found == wanted * 2


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_share_each_global_batch(records_dir, tokenizer, hosts):
    lengths = (2 * CUTOFF,)
    alone = _open(records_dir, tokenizer, pairs_per_clip=2, lengths=lengths)
    parts = [
        _open(
            records_dir,
            tokenizer,
            pairs_per_clip=2,
            lengths=lengths,
            process_index=host,
            process_count=hosts,
        ).batches(steps=4)
        for host in range(hosts)
    ]
    for wanted, *found in zip(alone.batches(steps=4), *parts, strict=True):
        together = {name: np.concatenate([part[name] for part in found]) for name in wanted}
        _same(together, wanted)


@pytest.mark.parametrize("layout", ["reference", "single", "grouped"])
def test_several_hosts_agree_on_shapes_without_talking(records_dir, tokenizer, layout):
    changes = dict(layout=layout, train_on="answer")
    alone = _open(records_dir, tokenizer, **changes)
    hosts = [
        _open(records_dir, tokenizer, **changes, process_index=host, process_count=2)
        for host in range(2)
    ]
    widths = set()
    parts = [host.batches(steps=5) for host in hosts]
    for step, (wanted, *found) in enumerate(zip(alone.batches(steps=5), *parts, strict=True)):
        _same({name: np.concatenate([part[name] for part in found]) for name in wanted}, wanted)
        widths.add(wanted["input_ids"].shape[1])
        targets = (wanted["target_ids"] != -100).sum(axis=1)
        assert [host.most_targets(step) for host in hosts] == [targets.max()] * 2
    assert len(widths) > 1


def test_grouping_by_length_brings_like_lengths_together(records_dir, tokenizer):
    def padding(window: int) -> int:
        pipeline = _open(records_dir, tokenizer, group_by_length=window)
        steps = list(pipeline.batches(steps=2 * pipeline.steps_per_epoch))
        return sum(int((batch["segment_ids"] == 0).sum()) for batch in steps)

    assert padding(50) < 0.8 * padding(0)


@pytest.mark.parametrize(
    ("tasks", "datasets", "take"),
    [
        (("closed",), ("*",), lambda clip, pair: pair.closed_ended),
        (("open",), ("mini_speech",), lambda c, p: "speech" in c.dataset and p.task[0] == "o"),
        (("classification",), ("*",), lambda clip, pair: pair.task == "cla_sound"),
        (("cla_*", "open_*"), ("MINI_SOUND*",), lambda clip, pair: "sound" in clip.dataset),
    ],
)  # fmt: skip
def test_filters_choose_pairs(records_dir, tokenizer, by_id, tasks, datasets, take):
    pipeline = _open(records_dir, tokenizer, tasks=tasks, datasets=datasets)
    rows = [pipeline.contents(row)[0] for row in range(pipeline.rows_per_epoch)]
    found = {(clip, place) for clip, (place,) in rows}
    assert found == {
        (clip.clip_id, place)
        for clip in by_id.values()
        for place, pair in enumerate(clip.pairs)
        if clip.split == "train" and take(clip, pair)
    }


@pytest.fixture(scope="module")
def apart(clips, tmp_path_factory):
    """Records of the clips of one dataset alone, by dataset."""
    from data_pipelines.records.write import write_records

    folder = tmp_path_factory.mktemp("apart")
    for dataset in ("mini_sound", "mini_speech"):
        alone = [clip for clip in clips if clip.dataset == dataset]
        # One shard: the writer sorts records by their keys within a shard.
        write_records(alone, folder / dataset, tag_labels=records_corpus.LABELS, shards=1)
    write_records(clips, folder / "both", tag_labels=records_corpus.LABELS, shards=1)
    return folder


@pytest.mark.parametrize("layout", ["single", "grouped", "tags"])
@pytest.mark.parametrize("group", ["audio", "speech"])
def test_a_group_of_datasets_is_as_if_there_were_no_others(apart, tokenizer, group, layout):
    dataset = {"audio": "mini_sound", "speech": "mini_speech"}[group]
    several = dict(pairs_per_clip=3, clips_per_row=2) if layout == "grouped" else {}
    changes = dict(layout=layout, group_by_length=2, rows_per_batch=2, **several)
    chosen = _open(apart / "both", tokenizer, datasets=(group,), **changes)
    alone = _open(apart / dataset, tokenizer, **changes)
    assert chosen.rows_per_epoch == alone.rows_per_epoch
    assert chosen.selection.taken == alone.selection.taken
    assert list(chosen.selection.taken) == [dataset] != list(chosen.selection.left_out)
    steps = 2 * alone.steps_per_epoch + 1
    for left, right in zip(chosen.batches(steps=steps), alone.batches(steps=steps), strict=True):
        _same(left, right)


def test_rows_of_some_datasets_are_resumed_and_shared_by_hosts(records_dir, tokenizer):
    changes = dict(datasets=("audio",), pairs_per_clip=2, clips_per_row=2)
    whole = list(_open(records_dir, tokenizer, **changes).batches(steps=6))
    hosts = [
        _open(records_dir, tokenizer, process_index=host, process_count=2, **changes)
        for host in range(2)
    ]
    later = [host.batches(start_step=2, steps=4) for host in hosts]
    for wanted, *found in zip(whole[2:], *later, strict=True):
        _same({name: np.concatenate([part[name] for part in found]) for name in wanted}, wanted)


def test_unknown_and_empty_choices_of_datasets_are_refused(records_dir, tokenizer):
    with pytest.raises(UserError, match=r"'music' is no group .* mini_sound, mini_speech"):
        _open(records_dir, tokenizer, datasets=("audio", "music"))
    with pytest.raises(UserError, match="is taken by tasks .* and datasets none; tasks there: cla"):
        _open(records_dir, tokenizer, datasets=("joint",))


# --- bad input ------------------------------------------------------------------------------------


def _fails_in_both_ways(directory, tokenizer, message, **changes):
    pipeline = _open(directory, tokenizer, rows_per_batch=1, shuffle=False, **changes)
    numbers = [entry.clip_id for entry in pipeline.store.entries]
    rows = [pipeline.contents(row)[0][0] for row in range(pipeline.rows_per_epoch)]
    good = rows.index("train_2")
    assert numbers
    with pytest.raises(RecordError, match=message) as plain:
        pipeline.batch(good)
    iterator = pipeline.batches()
    for _ in range(good):
        next(iterator)
    with pytest.raises(RecordError, match=message) as inside:
        next(iterator)
    assert str(plain.value) == str(inside.value)


_WHERE = r"records-train\.tfrecord-0000\d-of-00002, record \d \(clip 'train_2'\)"


def test_a_flipped_bit_is_found_and_placed(records_copy, tokenizer):
    store = record_files.RecordStore(records_copy, split="train")
    entry = next(entry for entry in store.entries if entry.clip_id == "train_2")
    path = record_files.shard_path(records_copy, entry.shard)
    content = bytearray(path.read_bytes())
    content[entry.offset + entry.length // 2] ^= 4
    path.write_bytes(content)
    _fails_in_both_ways(records_copy, tokenizer, _WHERE + ": checksum differs")


@pytest.mark.parametrize("field", ["spoken_text", "audio", "pairs/output"])
def test_a_missing_field_is_found_and_placed(records_copy, tokenizer, field):
    records_corpus.tamper(records_copy, "train_2", lambda fields: fields.pop(field))
    _fails_in_both_ways(records_copy, tokenizer, _WHERE + f": field '{field}' is missing")


def test_corrupt_audio_and_an_empty_answer_are_found_and_placed(records_copy, tokenizer, tmp_path):
    other = shutil.copytree(records_copy, tmp_path / "other")
    records_corpus.tamper(
        records_copy, "train_2", lambda f: f["audio"].bytes_list.value.__setitem__(0, b"fLaC" * 99)
    )
    _fails_in_both_ways(records_copy, tokenizer, _WHERE + ": field 'audio': ")
    records_corpus.tamper(
        other, "train_2", lambda f: f["pairs/output"].bytes_list.value.__setitem__(0, b"")
    )
    _fails_in_both_ways(other, tokenizer, _WHERE + ", pair 'p0': field 'output' is ''")


def test_tags_and_tokens_outside_their_lists_are_refused(records_copy, tokenizer):
    pipeline = _open(records_copy, dataclasses.replace(tokenizer, vocab_size=40))
    with pytest.raises(RecordError, match="token .* is outside the vocabulary of 40"):
        pipeline.row(0)
    (records_copy / record_files.TAG_LABELS).write_text('["tone"]')
    with pytest.raises(RecordError, match="field 'tags': 'noise' is not in tag_labels.json"):
        _open(records_copy, None, layout="tags").row(0)


def test_what_is_not_there_is_named(records_dir, tokenizer, tmp_path):
    with pytest.raises(UserError, match="not a records directory .*write_records"):
        _open(tmp_path, tokenizer)
    with pytest.raises(UserError, match="no split 'test'; it has train, val"):
        _open(records_dir, tokenizer, split="test")
    with pytest.raises(UserError, match=r"'asr' is no list.*: cla_sound, open_describe"):
        _open(records_dir, tokenizer, tasks="asr")
    with pytest.raises(UserError, match="4, which 3 hosts cannot share"):
        _open(records_dir, tokenizer, process_count=3)
    with pytest.raises(UserError, match="'stored', but .* holds none"):
        _open(records_dir, tokenizer, features="stored")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "packed"}, "data.layout is 'packed'; use one of reference, single, grouped"),
        ({"train_on": "answers"}, "data.train_on is 'answers'"),
        ({"features": "cached"}, "data.features is 'cached'"),
        ({"cutoff": 1}, "data.cutoff is 1; it must be at least 2"),
        ({"rows_per_batch": 0}, "data.rows_per_batch is 0"),
        ({"layout": "single", "pairs_per_clip": 2}, "pairs_per_clip is 2, but layout 'single'"),
        ({"layout": "reference", "clips_per_row": 2}, "clips_per_row is 2, but layout 'reference'"),
        ({"row_tokens": 99}, "row_tokens is 99, but a pair may have data.cutoff = 120 tokens"),
        ({"row_tokens": 240, "lengths": (128,)}, "lengths ends at 128.* may hold 240 tokens"),
        ({"max_bad_share": 1.5}, "data.max_bad_share is 1.5; use a share, 0 to 1"),
        ({"lengths": (64, 32)}, "give ascending lengths"),
        ({"pairs_per_clip": 2, "lengths": (64,)}, "lengths ends at 64.* may hold 240 tokens"),
    ],
)
def test_a_bad_config_is_named(records_dir, changes, message):
    with pytest.raises(UserError, match=message):
        _config(records_dir, **changes)


def test_records_without_labels_say_what_to_do_about_tagging(records_copy):
    (records_copy / "tag_labels.json").unlink()
    with pytest.raises(UserError, match=r"tag_labels\.json.*--config\.weights\.tltr"):
        _open(records_copy, None, layout="tags", pairs_per_clip=1)
