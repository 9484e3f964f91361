"""What the benchmarks of the checks and of resuming measure is what they say."""

import jax
import numpy as np
import pytest

from benchmarks import input_pipeline, overhead, resume, train_contenders
from data_pipelines.input.data_config import DataConfig
from data_pipelines.input.pipeline import InputPipeline
from data_pipelines.records.schema import RecordError
from ltu_jax.core.hardware import cores
from ltu_jax.preprocessing.text import load_tokenizer

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def assets(smollm2_files, monkeypatch, tmp_path):
    monkeypatch.setattr(input_pipeline, "TOKENIZER", smollm2_files)
    monkeypatch.setattr(input_pipeline, "WHISPER", tmp_path / "none")


def test_the_pipeline_benchmark_times_every_setting_on_its_cores(tmp_path):
    records = input_pipeline.make_records(tmp_path, clips=2)
    found = input_pipeline.measure(
        records, layouts=["single"], delays=[0.01], rows=2, rounds=1, batches=2
    )
    assert (found["clips"], found["pairs"]) == (2, 18)
    there = [(row["from"], row["cores"]) for row in found["rows"]]
    most = min(2, cores())
    wanted = [("disk", 1), ("disk", 2)][:most] + [("bucket, 10 ms away", most)]
    assert there == wanted and len(found["timings"]) == len(wanted)
    for row, (timed,) in zip(found["rows"], found["timings"].values(), strict=True):
        assert row["clips_per_second"] == pytest.approx(4 / timed["seconds"])
        assert len(timed["workers"]) == row["cores"]
        assert row["cpu_ms_a_clip"] > 0 and 0 < row["workers_busy"] <= row["cores"]


def test_only_the_guard_is_missing_from_the_step_without_it():
    plan = train_contenders.setup("tiny", pairs_per_batch=4, pairs_per_clip=2, batches=1)
    work = train_contenders.draw_work(plan, seed=1)
    params = train_contenders.random_params(plan, seed=0)
    bare = overhead.without_guard(plan, params, work)
    ours = train_contenders.Ours(plan, params)
    ours.run(work.grouped)
    before = jax.device_get(ours.state.trainable)
    jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(bare.state.trainable))
    (batch,) = work.grouped
    bad = [{**batch, "features": np.full_like(batch["features"], np.nan)}]
    ours.run(bad)
    bare.run(bad)
    jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(ours.state.trainable))
    assert all(np.isnan(leaf).any() for leaf in jax.device_get(bare.state.trainable).values())


def test_the_checks_of_samples_are_seen(tmp_path):
    plan = train_contenders.setup("tiny", pairs_per_batch=8, pairs_per_clip=4, batches=1)
    records = input_pipeline.make_records(tmp_path, clips=2)
    _, calls = overhead.samples(records, plan=plan, steps=2)
    # Of each of two rows: checksum, fields, log-mel, and four pairs.
    assert calls == 2 * (3 + 4)


def test_the_big_index_is_that_of_real_records(tmp_path, smollm2_files):
    tokenizer = load_tokenizer(smollm2_files)
    big = resume.BigRecords(tmp_path, pairs=5_000, tokenizer=tokenizer)
    config = DataConfig(
        records=str(big.folder), split="train", layout="grouped", cutoff=108, pairs_per_clip=8,
        clips_per_row=2, row_tokens=622, rows_per_batch=1, train_on="all", features="on_the_fly",
        seed=0, audio_tokens=25, n_mels=80,
    )  # fmt: skip
    pipeline = InputPipeline(config, tokenizer=tokenizer)
    (taken,) = pipeline.selection.taken.values()
    assert taken.pairs == big.pairs >= 5_000
    with pytest.raises(RecordError, match="checksum differs"):
        pipeline.row(9)
    wanted = pipeline.contents(9)
    big.fill([clip for clip, _ in wanted])
    pipeline = InputPipeline(config, tokenizer=tokenizer)
    assert pipeline.contents(9) == wanted
    row = pipeline.row(9)  # refuses other tokens than the index has
    assert set(row["segment_ids"]) == set(range(1, 1 + sum(len(pairs) for _, pairs in wanted)))
