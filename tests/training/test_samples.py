"""Sample answers of a run: those whose record is damaged are left out, with the reason."""

import pytest

from data_pipelines.records import record_files
from ltu_jax import train
from ltu_jax.training.logs import read_rows
from tests.support.tiny_stage import ROOT, arguments, make_place

pytestmark = pytest.mark.slow


def test_a_damaged_record_costs_its_own_sample_only(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    place = make_place(tmp_path)
    store = record_files.RecordStore(place / "records", split="val")
    victim, other = (entry.clip_id for entry in store.entries)
    shard = record_files.shard_path(store.directory, store.entries[0].shard)
    with shard.open("r+b") as file:
        file.seek(store.entries[0].offset + 40)
        file.write(b"damaged")
    more = ["--config.steps=1", "--config.mesh.data=2", "--config.log.validate_batches=0"]
    samples = ["--config.log.samples=2", "--config.log.sample_tokens=3"]
    assert train.main(arguments(place, place / "run", *more, *samples)) == 0
    rows = read_rows(place / "run" / "log.jsonl")
    ((lost,),) = [row["samples_lost"] for row in rows if "samples_lost" in row]
    assert f"{shard}, record 0" in lost and victim in lost and "checksum differs" in lost
    ((shown,),) = [row["samples"] for row in rows if "samples" in row]
    assert shown["clip"] == other and "### Response:" in shown["prompt"]
