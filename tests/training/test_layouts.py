"""The same pairs in every layout give the same loss of every token and the same gradients."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.input.data_config import DataConfig
from data_pipelines.input.pipeline import InputPipeline
from data_pipelines.records.schema import QAPair
from ltu_jax.core.errors import UserError
from ltu_jax.models.llama import LlamaConfig
from ltu_jax.models.lora import LoRAConfig
from ltu_jax.models.ltu_as import LTUAS, LTUASConfig
from ltu_jax.models.text_batch import ROW_WEIGHTS, TextBatch
from ltu_jax.models.tltr import TLTRConfig
from ltu_jax.preprocessing.text import IGNORE, load_tokenizer
from ltu_jax.training import losses
from ltu_jax.training.flops import count_work
from ltu_jax.training.state import split_trainable
from tests.support.golden_model import STAGE3
from tests.support.targets import dense_targets, with_labels

AUDIO, LAYERS, WIDTH = 5, 3, 24
MODEL = LTUASConfig(
    tltr=TLTRConfig(d_model=WIDTH, time_heads=1, layer_heads=4),
    llama=LlamaConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        rms_norm_eps=1e-5,
        rope_theta=1e4,
        rope_scaling=None,
        tie_word_embeddings=False,
        attention_bias=False,
    ),
    lora=LoRAConfig(rank=4, alpha=8.0, dropout=0.1, targets=("q_proj", "v_proj")),
    audio_layers=LAYERS,
    audio_tokens=AUDIO,
)
CUTOFF = 120
# Short and long answers, some longer than the cut-off.
WORDS = (1, 30, 4, 70, 2, 12)


@pytest.fixture(scope="module")
def tokenizer(golden):
    return load_tokenizer(golden / "text_cases" / "spm320.model")


@pytest.fixture(scope="module")
def records_dir(tmp_path_factory):
    """Six clips of 1 to 6 pairs; every third has no spoken text."""

    from data_pipelines.records.write import write_records
    from tests.support import records_corpus

    folder = tmp_path_factory.mktemp("layouts")
    (folder / "audio").mkdir()
    clips = []
    for number in range(6):
        clip = records_corpus.make_clip(folder / "audio", number, pairs=1 + number % 6)
        pairs = [
            QAPair(
                pair_id=pair.pair_id,
                instruction=f"Ask {place}?",
                output="noise " * WORDS[(place + number) % 6],
                task=pair.task,
                closed_ended=pair.closed_ended,
            )
            for place, pair in enumerate(clip.pairs)
        ]
        clips.append(dataclasses.replace(clip, pairs=tuple(pairs)))
    write_records(clips, folder / "records", tag_labels=records_corpus.LABELS, shards=1)
    return folder / "records"


@pytest.fixture(scope="module")
def model():
    """Functions, and parameters far from any initialisation that could hide a mistake."""
    # Rows of more than two blocks leave scores out; single rows are computed whole.
    fns = LTUAS.functional(MODEL, attention="blocks", longest_pair=CUTOFF)
    rng = np.random.default_rng(0)
    params = {
        name: jnp.asarray(
            0.1 * rng.standard_normal(leaf.shape, dtype=np.float32) + name.endswith("scale")
        )
        for name, leaf in sorted(fns.shapes.items())
    }
    return fns, *split_trainable(params, STAGE3)


def features(frozen, batch):
    """In place of the encoder: a fixed mixture of the log-mel, [.., F, M] to [.., W, A, D]."""
    del frozen
    heard = batch["log_mel"]
    mixture = np.random.default_rng(1).standard_normal((LAYERS, heard.shape[-1], WIDTH))
    pooled = heard.reshape(*heard.shape[:-2], AUDIO, -1, heard.shape[-1]).mean(-2)
    return jnp.einsum("...AM,WMD->...WAD", pooled, mixture.astype(np.float32))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Epoch:
    """Every pair once: the loss of each token by (clip, pair), and the gradient of their mean."""

    tokens: dict[tuple[str, int], np.ndarray]
    gradients: dict[str, np.ndarray]
    batch: dict[str, np.ndarray]
    report: object


@functools.cache
def everything(fns):
    """Gradients, and the loss of each token; epochs of one shape share a program."""
    loss_fn = losses.language_loss(fns, features=features)

    @jax.jit
    def of_batch(trainable, frozen, batch):
        located = {name: leaf for name, leaf in batch.items() if name != "labels"}
        _, gradients = jax.value_and_grad(loss_fn, has_aux=True)(trainable, frozen, located, None)
        logits = fns.bind({**trainable, **frozen})(TextBatch.of(batch), features(frozen, batch))
        logs = jax.nn.log_softmax(logits[:, :-1])
        wanted = jnp.maximum(batch["labels"][:, 1:], 0)
        return gradients, -jnp.take_along_axis(logs, wanted[..., None], axis=2)[..., 0]

    return of_batch


def epoch_of(records_dir, tokenizer, model, *, repair=None, **changes):
    values = dict(
        records=str(records_dir), split="train", cutoff=CUTOFF, pairs_per_clip=1, clips_per_row=1,
        rows_per_batch=1, train_on="all", features="on_the_fly", seed=3, audio_tokens=AUDIO,
        n_mels=80, workers=1,
    )  # fmt: skip
    config = DataConfig(**values | changes)
    rows = InputPipeline(config, tokenizer=tokenizer).rows_per_epoch
    pipeline = InputPipeline(dataclasses.replace(config, rows_per_batch=rows), tokenizer=tokenizer)
    batch = with_labels(next(pipeline.batches(steps=1)))
    if repair is not None:
        batch = repair(batch)
    fns, trainable, frozen = model
    located = dense_targets(batch)
    work = count_work(located, audio_tokens=AUDIO, parts=1)
    clips = sum(len(pipeline.contents(row)) for row in range(rows))
    assert (work.pairs, work.clips, work.audio_tokens) == (21, clips, clips * AUDIO)
    assert work.text_tokens == (batch["segment_ids"] > 0).sum()
    inputs = (trainable, frozen, {**located, "labels": batch["labels"]})
    gradients, tokens = everything(fns)(*inputs)
    tokens, found = np.asarray(tokens), {}
    for row in range(rows):
        pairs = [(clip, place) for clip, places in pipeline.contents(row) for place in places]
        for segment, pair in enumerate(pairs, start=1):
            own = batch["segment_ids"][row, 1:] == segment
            assert pair not in found
            found[pair] = tokens[row][own & (batch["labels"][row, 1:] != IGNORE)]
        assert batch["segment_ids"][row].max() == len(pairs)
    assert np.isfinite(tokens).all()
    gradients = {path: np.asarray(leaf) for path, leaf in gradients.items()}
    return Epoch(tokens=found, gradients=gradients, batch=batch, report=pipeline.report())


def assert_same(found, expected):
    assert found.tokens.keys() == expected.tokens.keys() and len(found.tokens) == 21
    for pair, losses_of_pair in expected.tokens.items():
        np.testing.assert_allclose(found.tokens[pair], losses_of_pair, atol=1e-5, rtol=0)
    assert found.gradients.keys() == expected.gradients.keys()
    for path, gradient in expected.gradients.items():
        limit = 1e-5 * np.abs(gradient).max()
        assert limit > 0, path
        np.testing.assert_allclose(
            found.gradients[path], gradient, atol=limit, rtol=0, err_msg=path
        )


@pytest.fixture(scope="module")
def singles(records_dir, tokenizer, model):
    return {
        train_on: epoch_of(records_dir, tokenizer, model, layout="single", train_on=train_on)
        for train_on in ("all", "answer")
    }


@pytest.mark.parametrize(
    "train_on, cap, clips, room, rows",
    [
        ("all", 1, 1, 0, 21),
        ("answer", 3, 1, 0, 9),
        ("all", 100, 1, 0, 6),
        ("all", 2, 1, 130, None),
        ("answer", 2, 2, 240, None),
        ("all", 100, 3, 320, None),
        ("all", 3, 4, 0, None),
    ],
)
def test_grouped_rows_are_single_rows(
    records_dir, tokenizer, model, singles, train_on, cap, clips, room, rows
):
    grouped = epoch_of(
        records_dir,
        tokenizer,
        model,
        layout="grouped",
        train_on=train_on,
        pairs_per_clip=cap,
        clips_per_row=clips,
        row_tokens=room,
    )
    assert_same(grouped, singles[train_on])
    assert grouped.report.cut_pairs == singles[train_on].report.cut_pairs > 0
    if rows is not None:
        assert grouped.report.rows == rows
    if clips > 1:
        assert grouped.batch["clip_ids"].max() >= 1 and grouped.report.clips_per_row > 1
        assert grouped.batch["log_mel"].shape[1] == clips


@pytest.mark.parametrize("train_on", ["all", "answer"])
def test_the_official_rows_are_single_rows_but_for_their_positions(
    records_dir, tokenizer, model, train_on, singles
):
    """Official positions count the padding between audio and text; here they do not."""

    def repair(batch):
        after = np.maximum(np.cumsum(batch["segment_ids"], axis=1) - 1, 0)
        ahead = batch["positions"][:, :AUDIO]
        positions = np.concatenate([ahead, AUDIO + after], axis=1).astype(np.int32)
        begins = batch["input_ids"] == tokenizer.bos_id
        labels = np.where(begins, IGNORE, batch["labels"])
        return {**batch, "positions": positions, "labels": labels}

    official = epoch_of(
        records_dir, tokenizer, model, layout="reference", train_on=train_on, repair=repair
    )
    assert (official.batch["segment_ids"][:, 0] == 0).any()
    assert_same(official, singles[train_on])


@pytest.mark.slow
def test_without_padding_all_three_layouts_are_the_same(records_dir, tokenizer, model):
    cut = dict(cutoff=24, pad_multiple=1)
    reference = epoch_of(records_dir, tokenizer, model, layout="reference", **cut)
    assert (reference.batch["segment_ids"] == 1).all() and reference.report.cut_pairs == 21
    assert_same(epoch_of(records_dir, tokenizer, model, layout="single", **cut), reference)
    for clips, cap in ((1, 6), (2, 2)):
        changes = dict(layout="grouped", clips_per_row=clips, pairs_per_clip=cap, **cut)
        assert_same(epoch_of(records_dir, tokenizer, model, **changes), reference)


@pytest.fixture(scope="module")
def step(model):
    """Loss and gradients of a batch of the input pipeline, as the step computes them."""
    fns, trainable, frozen = model

    @functools.cache
    def compiled(chunk):
        loss_fn = losses.language_loss(fns, features=features, chunk=chunk)
        return jax.jit(jax.value_and_grad(loss_fn, has_aux=True))

    def loss_and_gradients(batch, *, chunk=0):
        (loss, _), gradients = compiled(chunk)(trainable, frozen, batch, None)
        return float(loss), {path: np.asarray(leaf) for path, leaf in gradients.items()}

    return loss_and_gradients


@pytest.mark.parametrize("train_on", ["all", "answer"])
def test_micro_rows_are_the_official_micro_batches(records_dir, tokenizer, step, train_on):
    """One step of 12 rows is the mean over 4 batches of 3, each collated by itself."""
    values = dict(
        records=str(records_dir), split="train", cutoff=CUTOFF, pairs_per_clip=1, clips_per_row=1,
        train_on=train_on, features="on_the_fly", seed=5, audio_tokens=AUDIO, n_mels=80, workers=1,
        layout="reference",
    )  # fmt: skip
    small = InputPipeline(DataConfig(rows_per_batch=3, **values), tokenizer=tokenizer)
    parts = list(small.batches(steps=4))
    config = DataConfig(rows_per_batch=12, micro_rows=3, **values)
    whole = InputPipeline(config, tokenizer=tokenizer)
    (batch,) = whole.batches(steps=1)
    widths = {part["input_ids"].shape[1] for part in parts}
    assert len(widths) > 1 and max(widths) == batch["input_ids"].shape[1]
    expected = [step(part) for part in parts]
    mean = np.mean([loss for loss, _ in expected])
    for chunk in (0, 16) if train_on == "all" else (0,):
        loss, gradients = step(batch, chunk=chunk)
        np.testing.assert_allclose(loss, mean, rtol=1e-5)
        for path, gradient in gradients.items():
            truth = np.mean([of_part[path] for _, of_part in expected], axis=0)
            limit = 1e-5 * np.abs(truth).max()
            np.testing.assert_allclose(gradient, truth, atol=limit, rtol=0, err_msg=path)
    unweighted = {name: leaf for name, leaf in batch.items() if name != ROW_WEIGHTS}
    assert abs(mean - step(unweighted)[0]) > 1e-3  # one mean over all tokens is another thing
    # Hosts know the weights of their own rows without talking.
    hosts = [
        InputPipeline(config, tokenizer=tokenizer, process_index=index, process_count=2).batch(0)
        for index in range(2)
    ]
    for name, leaf in batch.items():
        np.testing.assert_array_equal(np.concatenate([host[name] for host in hosts]), leaf)


def test_micro_rows_of_other_layouts_are_refused(records_dir):
    values = dict(
        records=str(records_dir), split="train", cutoff=CUTOFF, pairs_per_clip=1, clips_per_row=1,
        train_on="all", features="on_the_fly", seed=3, audio_tokens=AUDIO, n_mels=80,
    )  # fmt: skip
    with pytest.raises(UserError, match="micro_rows is 3, but layout 'single'"):
        DataConfig(rows_per_batch=12, micro_rows=3, layout="single", **values)
    with pytest.raises(UserError, match=r"rows_per_batch is 10, .* data\.micro_rows = 3"):
        DataConfig(rows_per_batch=10, micro_rows=3, layout="reference", **values)
