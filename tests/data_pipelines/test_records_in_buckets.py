"""Records that lie in a bucket: the same as on a disk, and named where they are gone."""

import numpy as np
import pytest

from data_pipelines.input.token_counts import token_lengths
from data_pipelines.records.record_files import RecordStore
from data_pipelines.records.schema import RecordError
from ltu_jax.core.errors import UserError
from ltu_jax.preprocessing.tokenizer import load_tokenizer
from tests.support import tiny_stage


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tiny_stage.make_place(tmp_path_factory.mktemp("place"))


def test_records_in_a_bucket_are_those_of_the_disk(place, bucket):
    address = bucket.take(place / "records", "records")
    here, there = (RecordStore(folder, split="train") for folder in (place / "records", address))
    assert len(here) == len(there) > 1
    assert there.where(0).startswith(f"{address}/open_asqa_records/")
    for number in range(len(here)):
        one, other = here.read(number), there.read(number)
        assert one.clip_id == other.clip_id and one.pairs == other.pairs
        assert one.spoken_text == other.spoken_text
    assert there.cut_off() == {}
    tokenizer = load_tokenizer(place / "llama")
    counts = [
        token_lengths(folder, split="train", tokenizer=tokenizer, show=False)
        for folder in (place / "records", address, address)
    ]
    assert np.array_equal(counts[0], counts[1]) and np.array_equal(counts[1], counts[2])
    assert any(name.startswith("records/tokens/") for name in bucket.names())


def test_a_shard_or_a_bucket_that_is_gone_is_named(place, bucket):
    address = bucket.take(place / "records", "records")
    store = RecordStore(address, split="train")
    shard = store.entries[0].shard
    del bucket.objects["test-bucket"][f"records/open_asqa_records/1.0.0/{shard}"]
    with pytest.raises(RecordError, match=f"{shard}.*see that its bucket can be read"):
        store.read(0)
    assert shard in store.cut_off()[0]
    bucket.vanish()
    with pytest.raises(UserError, match=address):
        RecordStore(address, split="train")
    with pytest.raises(UserError, match="test-bucket"):
        store.cut_off()
