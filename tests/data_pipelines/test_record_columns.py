"""The index as arrays is the index as lines."""

import dataclasses
import json

import numpy as np
import pytest

from data_pipelines.records import record_files, record_index
from data_pipelines.records.record_index import IndexEntry, join, of_entries
from ltu_jax.core.errors import UserError


def _entries(seed: int, *, shard: str, count: int) -> list[IndexEntry]:
    rng = np.random.default_rng(seed)
    return [
        IndexEntry(
            shard=shard, number=number, offset=int(rng.integers(2**40)),
            length=int(rng.integers(2**31)), crc32=int(rng.integers(2**32)),
            clip_id=f"{shard}/é\n{number}" + "x" * int(rng.integers(3)),
            dataset=str(rng.choice(["a", "b\nc", "ü"])), seconds=float(rng.random()),
            tags=tuple(rng.choice(["dog", "cat", "a\0b"], rng.integers(3), replace=False).tolist()),
            pairs=tuple(
                (str(rng.choice(["cla", "open"])), bool(rng.integers(2)), int(rng.integers(999)))
                for _ in range(rng.integers(4))
            ),
        )
        for number in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("counts", [(0,), (1,), (5, 0, 7), (0, 0), (3, 40)])
def test_columns_are_their_entries(tmp_path, counts):
    parts = [_entries(n, shard=f"s{n}", count=count) for n, count in enumerate(counts)]
    joined = join([of_entries(part) for part in parts])
    wanted = [entry for part in parts for entry in part]
    assert list(joined) == wanted and len(joined) == len(wanted)
    assert joined.pair_counts.tolist() == [len(entry.pairs) for entry in wanted]
    assert joined.tagged.tolist() == [bool(entry.tags) for entry in wanted]
    begins = np.cumsum([0, *(len(entry.pairs) for entry in wanted)])[:-1]
    assert joined.pair_begins.tolist() == begins.tolist()[: len(wanted)]
    record_index.save(tmp_path / "i.npz", joined, source=7)
    again = record_index.load(tmp_path / "i.npz", source=7)
    assert list(again) == wanted
    assert record_index.load(tmp_path / "i.npz", source=8) is None
    assert record_index.load(tmp_path / "none.npz", source=7) is None
    content = bytearray((tmp_path / "i.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "i.npz").write_bytes(content)
    damaged = record_index.load(tmp_path / "i.npz", source=7)
    assert damaged is None or list(damaged) == wanted  # padding between members is nobody's


def test_the_arrays_are_written_with_the_records_and_made_again(records_copy):
    store = record_files.RecordStore(records_copy, split="train")
    files = sorted((records_copy / "index").glob("*train*.npz"))
    assert len(files) == 2
    lines = [
        line
        for path in sorted((records_copy / "index").glob("*train*.jsonl"))
        for line in map(json.loads, path.read_text().splitlines()[1:])
    ]
    for entry, line in zip(store.entries, lines, strict=True):
        found = dataclasses.asdict(entry)
        for key in ("offset", "length", "crc32", "clip_id", "dataset", "seconds"):
            assert found[key] == line[key]
        assert entry.tags == tuple(line["tags"])
        assert entry.pairs == tuple(map(tuple, line["pairs"]))
    files[0].write_bytes(b"PK")
    again = record_files.RecordStore(records_copy, split="train")
    assert list(again.entries) == list(store.entries)
    assert files[0].stat().st_size > 99  # kept for the next time
    files[1].unlink()
    path = files[1].with_suffix(".jsonl")
    path.write_bytes(path.read_bytes().replace(b'"offset":12', b'"offset":13'))
    with pytest.raises(UserError, match="its checksum differs from manifest.json"):
        record_files.RecordStore(records_copy, split="train")


def test_a_clip_is_found_by_its_id(records_dir):
    store = record_files.RecordStore(records_dir, split="train")
    for number, entry in enumerate(store.entries):
        assert store.find(entry.clip_id) == number
    for name in ("train_", "rain_1", "train_99", "n_1train", ""):
        assert store.find(name) is None
