"""Counted tokens are those of the rows; what is kept is used, and what is stale is not."""

import dataclasses
import json
import shlex
import shutil

import numpy as np
import pytest

from data_pipelines import token_lengths as count_tokens
from data_pipelines.input import token_counts
from data_pipelines.input.data_config import DataConfig
from data_pipelines.input.pipeline import InputPipeline
from data_pipelines.records import record_files
from data_pipelines.records.schema import RecordError
from ltu_jax.core.errors import UserError
from ltu_jax.preprocessing.text import TrainOn, tokenize_pair


def count(directory, tokenizer, split="train"):
    return token_counts.token_lengths(directory, split=split, tokenizer=tokenizer, show=False)


def pairs_of(directory, split="train"):
    store = record_files.RecordStore(directory, split=split)
    for number in range(len(store)):
        record = store.read(number)
        yield from ((record, pair) for pair in record.pairs)


@pytest.mark.parametrize("cutoff", [3, 40, 64, 1000])
@pytest.mark.parametrize("train_on", list(TrainOn))
def test_counts_are_those_of_tokenised_pairs(records_dir, tokenizer, cutoff, train_on):
    counted = count(records_dir, tokenizer)
    assert counted.shape == (18, 2) and counted.dtype == np.int32
    for (prompt, whole), (record, pair) in zip(counted, pairs_of(records_dir), strict=True):
        tokens = tokenize_pair(
            tokenizer,
            instruction=pair.instruction,
            spoken_text=record.spoken_text,
            output=pair.output,
            cutoff=cutoff,
            train_on=train_on,
        )
        assert len(tokens.input_ids) == min(whole, cutoff)
        asked = min(prompt, cutoff, whole) if train_on == TrainOn.ANSWER else 0
        assert tokens.labels.count(-100) == asked


def test_an_answer_that_ends_in_eos_gets_no_second_one(tokenizer):
    for output in ("noise", "noise </s>"):
        text = dict(instruction="What?", spoken_text="", output=output)
        _, whole = token_counts.pair_tokens(tokenizer, **text)
        for cutoff in range(2, whole + 3):
            tokens = tokenize_pair(tokenizer, cutoff=cutoff, **text)
            assert len(tokens.input_ids) == min(whole, cutoff)


def test_what_was_counted_is_kept_for_its_tokenizer_and_shard(records_copy, tokenizer, monkeypatch):
    wanted = count(records_copy, tokenizer)
    files = sorted((records_copy / "tokens" / tokenizer.identity[:16]).glob("*train*.npz"))
    assert len(files) == 2
    monkeypatch.setattr(token_counts, "pair_tokens", lambda *args, **kwargs: (1, 2))
    np.testing.assert_array_equal(count(records_copy, tokenizer), wanted)
    # Other special tokens are another tokenizer.
    other = dataclasses.replace(tokenizer, specials=tokenizer.specials[:-1])
    assert (count(records_copy, other) == (1, 2)).all()
    # Half of the pairs lie in a shard whose counts are damaged or of other records.
    files[0].write_bytes(files[0].read_bytes()[:50])
    assert 0 < (count(records_copy, tokenizer) == (1, 2)).all(axis=1).sum() < 18
    manifest = json.loads((records_copy / record_files.MANIFEST).read_text())
    manifest["splits"]["train"]["shards"][1]["sha256"] = "0" * 64
    (records_copy / record_files.MANIFEST).write_text(json.dumps(manifest))
    assert (count(records_copy, tokenizer) == (1, 2)).all()


@pytest.mark.parametrize("few", [0, count_tokens.FEW])  # by a worker, and in this process
def test_the_command_counts_all_splits(records_copy, golden, capsys, tokenizer, monkeypatch, few):
    monkeypatch.setattr(count_tokens, "FEW", few)
    wanted = {split: count(records_copy, tokenizer, split) for split in ("train", "val")}
    shutil.rmtree(records_copy / "tokens")
    vocabulary = golden / "text_cases" / "spm320.model"
    arguments = ["--records", str(records_copy), "--tokenizer", str(vocabulary), "--workers", "1"]
    assert count_tokens.command(arguments) == 0
    assert "tokens of 22 pairs" in capsys.readouterr().out
    assert len(list((records_copy / "tokens").rglob("*.npz"))) == 4
    for split, counts in wanted.items():
        np.testing.assert_array_equal(count(records_copy, tokenizer, split), counts)
    with pytest.raises(UserError, match="no tokenizer.model"):
        count_tokens.command(["--records", str(records_copy), "--tokenizer", str(records_copy)])


def test_a_start_refuses_to_count_many_pairs_and_names_the_command(
    records_copy, golden, tokenizer, monkeypatch
):
    monkeypatch.setattr(token_counts, "MOST_UNCOUNTED", 17)
    InputPipeline(_config(records_copy), tokenizer=tokenizer)  # they are counted
    shutil.rmtree(records_copy / "tokens")
    InputPipeline(_config(records_copy, split="val"), tokenizer=tokenizer)  # few
    folder = golden / "text_cases" / "spm320.model"
    with pytest.raises(UserError, match=r"18 pairs") as error:
        InputPipeline(_config(records_copy), tokenizer=tokenizer, tokenizer_dir=folder)
    arguments = shlex.split(str(error.value).split("python -m data_pipelines.token_lengths ")[1])
    assert count_tokens.command(arguments) == 0
    InputPipeline(_config(records_copy), tokenizer=tokenizer)


def _config(directory, **changes):
    values = dict(
        records=str(directory), split="train", layout="grouped", cutoff=64, pairs_per_clip=2,
        clips_per_row=2, row_tokens=200, rows_per_batch=4, train_on="all", features="on_the_fly",
        seed=0, audio_tokens=25, n_mels=80,
    )  # fmt: skip
    return DataConfig(**values | changes)


def test_rows_that_differ_from_what_was_counted_are_refused(records_copy, tokenizer):
    path = next((records_copy / "tokens" / tokenizer.identity[:16]).glob("*train*0-of*.npz"))
    with np.load(path) as data:
        counts, shard = data["counts"], data["shard"]
    np.savez(path, counts=counts - 1, shard=shard)
    pipeline = InputPipeline(
        _config(records_copy, cutoff=1000, row_tokens=2000), tokenizer=tokenizer
    )
    with pytest.raises(RecordError, match=r"\d+ tokens, but \d+ were counted.*delete the folder"):
        for row in range(pipeline.rows_per_epoch):
            pipeline.row(row)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"lengths": (100, 200)},
        {"clips_per_row": 1, "row_tokens": 0, "group_by_length": 2},
        {"layout": "single", "pairs_per_clip": 1, "clips_per_row": 1},
        {"layout": "reference", "pairs_per_clip": 1, "clips_per_row": 1},
    ],
)
def test_the_report_is_what_the_batches_hold(records_dir, tokenizer, changes):
    pipeline = InputPipeline(_config(records_dir, **changes), tokenizer=tokenizer)
    report = pipeline.report()
    assert (report.pairs, report.rows) == (18, pipeline.rows_per_epoch)
    whole = count(records_dir, tokenizer)[:, 1]
    assert report.cut_pairs == (whole > 64).sum() > 0
    tokens = np.minimum(whole, 64).sum()
    np.testing.assert_allclose(report.tokens_per_pair, tokens / 18)
    rows = [pipeline.contents(row) for row in range(report.rows)]
    np.testing.assert_allclose(report.clips_per_row, np.mean([len(row) for row in rows]))
    # The last batch of the report ends with the epoch; its width is that of its own rows.
    held, lengths = 0, set()
    for step in range(report.steps):
        batch = pipeline.batch(step)
        left = min(4, report.rows - 4 * step)
        width = pipeline.config.padded(int((batch["segment_ids"][:left] > 0).sum(axis=1).max()))
        held += left * width
        lengths.add(width)
    np.testing.assert_allclose(report.padding, 1 - tokens / held)
    assert report.lengths == tuple(sorted(lengths))
    assert f"{report.cut_pairs} cut at the cut-off" in str(report)
