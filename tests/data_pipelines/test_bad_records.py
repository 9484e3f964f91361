"""Damage costs exactly the damaged record: all else in the batches is what it was, bit for bit."""

import json
import shutil

import numpy as np
import pytest

from data_pipelines.records import record_files
from data_pipelines.records.bad_records import BadRecordLog, TooManyBadRecords
from data_pipelines.records.schema import RecordError
from tests.support.damages import (
    DAMAGES,
    FLIPPED,
    LAYOUTS,
    VICTIM,
    assert_same,
    blanked,
    flip,
    open_pipeline,
    place_of,
    voiceless,
)


@pytest.mark.parametrize(
    ("layout", "reason"),
    [(name, FLIPPED) for name in LAYOUTS]
    + [("packed", name) for name in DAMAGES if name != FLIPPED],
)
def test_all_but_the_damaged_record_is_bit_for_bit_what_it_was(
    records_dir, records_copy, tokenizer, tmp_path, layout, reason
):
    DAMAGES[reason](records_copy)
    log = BadRecordLog(tmp_path / "run")
    whole = open_pipeline(records_dir, tokenizer, **LAYOUTS[layout])
    damaged = open_pipeline(records_copy, tokenizer, log=log, **LAYOUTS[layout])
    steps = whole.steps_per_epoch + 1
    for step, batch in enumerate(damaged.batches(steps=steps)):
        wanted = blanked(whole.batch(step), whole, step, tokenizer=tokenizer)
        assert_same(batch, wanted)
    assert_same(damaged.batch(steps - 1), wanted)
    path, entry = place_of(records_copy)
    (line,) = map(json.loads, log.path.read_text().splitlines())
    assert (line["file"], line["offset"]) == (str(path), entry.offset)
    assert line["clip_id"] == VICTIM and reason in line["reason"]
    assert f"{path}, record {entry.number} (clip '{VICTIM}')" in line["reason"]
    assert len(damaged.bad) == 1 and damaged.order_fingerprint() == whole.order_fingerprint()


def test_an_answer_without_a_token_is_named(records_copy, tokenizer):
    (records_copy / "tokens").rename(records_copy / "old")
    voiceless(records_copy)
    pipeline = open_pipeline(records_copy, tokenizer, layout="single", rows_per_batch=18)
    pipeline.batch(0)
    (bad,) = pipeline.bad.found.values()
    assert "pair 'p2': field 'output' is '</s>', which is no token" in bad.reason


def test_hosts_lose_the_same_and_report_their_own(records_dir, records_copy, tokenizer):
    flip(records_copy)
    parts = [
        open_pipeline(records_copy, tokenizer, host=(i, 2), **LAYOUTS["packed"]) for i in range(2)
    ]
    whole = open_pipeline(records_dir, tokenizer, **LAYOUTS["packed"])
    assert len({part.order_fingerprint() for part in (*parts, whole)}) == 1
    met = set()
    for step in range(whole.steps_per_epoch):
        wanted = blanked(whole.batch(step), whole, step, tokenizer=tokenizer)
        found = [part.batch(step) for part in parts]
        joined = {name: np.concatenate([part[name] for part in found]) for name in wanted}
        assert_same(joined, wanted)
        first = 4 * step
        for host in range(2):
            rows = range(first + 2 * host, first + 2 * host + 2)
            clips = {clip for row in rows for clip, _ in whole.contents(row)}
            met |= {host} if VICTIM in clips else set()
    assert {host for host in range(2) if len(parts[host].bad)} == met != set()


def test_records_behind_the_end_of_a_file_are_known_at_once(records_dir, records_copy, tokenizer):
    shard, entry = place_of(records_copy)
    content = shard.read_bytes()
    store = record_files.RecordStore(records_copy, split="train")
    behind = [e for e in store.entries if e.shard == entry.shard and e.number >= entry.number]
    shard.write_bytes(content[: entry.offset + 5])
    victims = {e.clip_id for e in behind}
    pipeline = open_pipeline(records_copy, tokenizer, layout="single", max_bad_share=1)
    assert {bad.clip_id for bad in pipeline.bad.found.values()} == victims
    assert all("the file ends before it does" in b.reason for b in pipeline.bad.found.values())
    whole = open_pipeline(records_dir, tokenizer, layout="single")
    for step, batch in enumerate(pipeline.batches(steps=6)):
        wanted = whole.batch(step)
        assert_same(batch, blanked(wanted, whole, step, tokenizer=tokenizer, victims=victims))
    with pytest.raises(TooManyBadRecords, match=f"{len(victims)} of 7 records .*0.0001 allows"):
        open_pipeline(records_copy, tokenizer, layout="single", max_bad_share=0.0001)
    shard.unlink()
    with pytest.raises(TooManyBadRecords, match="there is no such file"):
        open_pipeline(records_copy, tokenizer, layout="single", max_bad_share=0.0)


def test_records_read_in_pieces_are_those_read_one_by_one(records_copy, monkeypatch):
    shard, entry = place_of(records_copy)
    shards = record_files.read_manifest(records_copy)["splits"]["train"]["shards"]
    (header,) = (header for header in shards if header["file"] == shard.name)
    entries = record_files.read_index(records_copy, header)
    content, read, asked = shard.read_bytes(), record_files.read_range, []
    wanted = [content[e.offset : e.offset + e.length] for e in entries]
    assert len(wanted) >= 3
    broken = set()

    def counted(path, *, start, size):
        asked.append(size)
        if size in broken:
            raise OSError(5, "Input/output error")
        return read(path, start=start, size=size)

    def payloads():
        asked.clear()
        found = list(record_files.read_payloads(records_copy, entries))
        return [str(one) if isinstance(one, RecordError) else one for one in found]

    monkeypatch.setattr(record_files, "read_range", counted)
    two = entries[1].offset + entries[1].length - entries[0].offset  # bytes of the first two
    for piece, first in ((1, entries[0].length), (two - 1, entries[0].length), (two, two),
                         (two + 1, two)):  # fmt: skip
        monkeypatch.setattr(record_files, "_PIECE", piece)
        assert payloads() == wanted and asked[0] == first
    monkeypatch.setattr(record_files, "_PIECE", 1 << 30)
    assert payloads() == wanted and len(asked) == 1
    # A piece that cannot be read is read record by record.
    broken.update(asked)
    assert payloads() == wanted and len(asked) == 1 + len(entries)
    broken.add(entry.length)
    found = payloads()
    lost = [place for place, e in enumerate(entries) if e.length == entry.length]
    assert all("cannot read it: Input/output error" in found[place] for place in lost)
    assert VICTIM in found[entry.number] and [
        payload for payload in found if isinstance(payload, bytes)
    ] == [payload for place, payload in enumerate(wanted) if place not in lost]
    # What is damaged or behind the end of the file stands in its place.
    broken.clear()
    flip(records_copy)
    found = payloads()
    assert VICTIM in found[entry.number] and "checksum differs" in found[entry.number]
    assert [p for p in found if isinstance(p, bytes)] == [
        p for p in wanted if p != wanted[entry.number]
    ]
    shard.write_bytes(content[: entry.offset + entry.length - 1])
    found = payloads()
    assert found[: entry.number] == wanted[: entry.number]
    assert all("the file ends before it does" in text for text in found[entry.number :])


def test_records_that_cannot_be_read_are_not_to_be_written_again(records_copy):
    shard, entry = place_of(records_copy)
    shard.unlink()
    with pytest.raises(RecordError, match="No such file.*write the records again"):
        record_files.read_payload(records_copy, entry)
    shard.mkdir()  # as a disk that answers with an error does
    with pytest.raises(RecordError, match="see that its disk can be read") as error:
        record_files.read_payload(records_copy, entry)
    assert VICTIM in str(error.value) and "write the records" not in str(error.value)


def test_damage_outside_the_payloads_costs_nothing(records_dir, records_copy, tokenizer):
    # The index says where a record lies: a flipped length or a foreign file misleads nobody.
    path, entry = place_of(records_copy)
    content = bytearray(path.read_bytes())
    content[entry.offset - 12] ^= 64
    path.write_bytes(content)
    shutil.copy(path, path.with_name("open_asqa_records-train.tfrecord-00007-of-00002"))
    (path.parent / "notes.txt").write_text("a foreign file")
    whole, damaged = (
        open_pipeline(d, tokenizer, layout="single") for d in (records_dir, records_copy)
    )
    for step, batch in enumerate(damaged.batches(steps=whole.steps_per_epoch)):
        assert_same(batch, whole.batch(step))
    assert len(damaged.bad) == 0


def test_a_first_start_on_damaged_records_counts_the_tokens_of_the_others(
    records_dir, records_copy, tokenizer
):
    shutil.rmtree(records_copy / "tokens")
    flip(records_copy)
    pipeline = open_pipeline(records_copy, tokenizer, **LAYOUTS["packed"])
    whole = open_pipeline(records_dir, tokenizer, layout="single", max_bad_share=0)
    texts = {}
    for position in range(whole.rows_per_epoch):
        ((clip, (pair,)),) = whole.contents(position)
        texts[clip, pair] = whole.row(position)["input_ids"].tolist()
    seen = []
    for step in range(pipeline.steps_per_epoch):
        batch = pipeline.batch(step)
        for row in range(4):
            if 4 * step + row >= pipeline.rows_per_epoch:
                break
            contents = pipeline.contents(4 * step + row)
            pairs = [(clip, pair) for clip, places in contents for pair in places]
            for segment, pair in enumerate(pairs, start=1):
                ids = batch["input_ids"][row][batch["segment_ids"][row] == segment].tolist()
                assert ids == ([] if pair[0] == VICTIM else texts[pair])
                seen.append(pair)
    assert sorted(seen) == sorted(texts)
    # Repaired, the next start counts the rest.
    shutil.copytree(records_dir / record_files.BUILDER, records_copy / record_files.BUILDER,
                    dirs_exist_ok=True)  # fmt: skip
    repaired = open_pipeline(records_copy, tokenizer, **LAYOUTS["packed"])
    intact = open_pipeline(records_dir, tokenizer, **LAYOUTS["packed"])
    assert repaired.order_fingerprint() == intact.order_fingerprint()


def test_the_next_row_stands_in_for_a_tagged_clip(records_dir, records_copy):
    flip(records_copy)
    whole = open_pipeline(records_dir, None, layout="tags")
    damaged = open_pipeline(records_copy, None, layout="tags")
    clips = [whole.contents(row)[0][0] for row in range(13)]
    for step, batch in enumerate(damaged.batches(steps=3)):
        for row in range(4):
            position = 4 * step + row
            while clips[position] == VICTIM:
                position += 1
            wanted = whole.row(position)
            np.testing.assert_array_equal(batch["log_mel"][row], wanted["log_mel"])
            np.testing.assert_array_equal(batch["targets"][row], wanted["targets"])
    for clip in {"train_1", "train_2", "train_5"}:
        flip(records_copy, clip)
    alone = open_pipeline(records_copy, None, layout="tags", max_bad_share=1)
    with pytest.raises(record_files.RecordError, match="no tagged clip of .* can be used"):
        next(alone.batches())


# --- too many -------------------------------------------------------------------------------------


def _meets(pipeline, clip_id, *, steps=40):
    """The first step whose batch holds a clip."""
    rows = pipeline.config.rows_per_batch
    return next(
        step
        for step in range(steps)
        for row in range(rows)
        if clip_id in {clip for clip, _ in pipeline.contents(rows * step + row)}
    )


def test_training_stops_at_the_step_that_meets_one_too_many(records_copy, tokenizer, tmp_path):
    options = dict(layout="single", rows_per_batch=1, max_bad_share=0.15, workers=3, prefetch=4)
    victims = ("train_4", "train_3")
    for clip in victims:
        flip(records_copy, clip)
    log = BadRecordLog(tmp_path / "run")
    pipeline = open_pipeline(records_copy, tokenizer, log=log, **options)
    first, last = sorted(_meets(pipeline, clip) for clip in victims)
    iterator = pipeline.batches()
    for step in range(last):
        next(iterator)
        assert len(pipeline.bad) == (step >= first)  # rows made ahead are not told ahead
    with pytest.raises(TooManyBadRecords) as error:
        next(iterator)
    message = str(error.value)
    assert "2 of 7 records of split 'train'" in message and "max_bad_share = 0.15" in message
    assert all(f"(clip '{clip}'): checksum differs" in message for clip in victims)
    assert [json.loads(line)["step"] for line in log.path.open()] == [first, last]
    # Killed between the two and started again: the same step stops it, each line stays one.
    for start in (first + 1, last):
        again = open_pipeline(
            records_copy, tokenizer, log=BadRecordLog(tmp_path / "run"), **options
        )
        iterator = again.batches(start_step=start)
        for _ in range(start, last):
            next(iterator)
        with pytest.raises(TooManyBadRecords, match="2 of 7 records"):
            next(iterator)
    assert len(log.path.read_text().splitlines()) == 2
    # Allowed, they are lost and no more.
    allowed = open_pipeline(records_copy, tokenizer, **options | {"max_bad_share": 0.3})
    assert len(list(allowed.batches(steps=36))) == 36 and len(allowed.bad) == 2


def test_a_log_that_was_cut_in_its_last_line_goes_on(records_copy, tokenizer, tmp_path):
    for clip in ("train_4", "train_3"):
        flip(records_copy, clip)
    options = dict(layout="single", rows_per_batch=18, max_bad_share=1)
    log = BadRecordLog(tmp_path, process=3)
    assert log.path.name == "bad_records.3.jsonl"
    open_pipeline(records_copy, tokenizer, log=log, **options).batch(0)
    whole = log.path.read_text()
    log.path.write_text(whole[:-30])
    open_pipeline(records_copy, tokenizer, log=BadRecordLog(tmp_path, process=3), **options).batch(
        0
    )
    assert sorted(log.path.read_text().splitlines()) == sorted(whole.splitlines())
    log.path.write_text('{"file": 1}\n')
    with pytest.raises(record_files.RecordError, match="not a list of bad records"):
        BadRecordLog(tmp_path, process=3)


def test_an_index_that_is_not_as_written_is_refused(records_copy, tokenizer):
    path = next((records_copy / record_files.INDEX).glob("*train*.jsonl"))
    path.with_suffix(".npz").unlink()
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"offset":12', b'"offset":13'))
    with pytest.raises(record_files.UserError, match="its checksum differs from manifest.json"):
        open_pipeline(records_copy, tokenizer, layout="single")
    path.unlink()
    with pytest.raises(record_files.UserError, match="no index of"):
        open_pipeline(records_copy, tokenizer, layout="single")
