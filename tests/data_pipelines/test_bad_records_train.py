"""A blanked record trains nothing and spoils nothing: loss and gradients are those without it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltu_jax.models.llama import LlamaConfig
from ltu_jax.models.lora import LoRAConfig
from ltu_jax.models.ltu_as import LTUAS, LTUASConfig
from ltu_jax.models.tltr import TLTRConfig
from ltu_jax.preprocessing.text import IGNORE
from ltu_jax.training import losses
from ltu_jax.training.state import split_trainable
from tests.support.damages import LAYOUTS, VICTIM, flip, open_pipeline
from tests.support.targets import dense_targets, with_labels

LAYERS, WIDTH, AUDIO = 2, 16, 5
MODEL = LTUASConfig(
    tltr=TLTRConfig(d_model=WIDTH, time_heads=1, layer_heads=4),
    llama=LlamaConfig(
        vocab_size=320, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, rms_norm_eps=1e-5,
        rope_theta=1e4, rope_scaling=None, tie_word_embeddings=False, attention_bias=False,
    ),
    lora=LoRAConfig(rank=4, alpha=8.0, dropout=0.0, targets=("q_proj", "v_proj")),
    audio_layers=LAYERS,
    audio_tokens=AUDIO,
)  # fmt: skip
TRAINED = ((r"tltr\..*", True), (r"audio_proj\..*", True), (r".*lora_[ab].*", True),
           (r"llama\.(?!.*lora_).*", False))  # fmt: skip


def _features(frozen, batch):
    """In place of the encoder: a fixed mixture of the log-mel, [.., F, M] to [.., W, A, D]."""
    del frozen
    heard = batch["log_mel"]
    mixture = np.random.default_rng(1).standard_normal((LAYERS, heard.shape[-1], WIDTH))
    pooled = heard.reshape(*heard.shape[:-2], AUDIO, -1, heard.shape[-1]).mean(-2)
    return jnp.einsum("...AM,WMD->...WAD", pooled, mixture.astype(np.float32))


@pytest.fixture(scope="module", params=["xla", "blocks"])
def loss_and_gradients(request):
    fns = LTUAS.functional(MODEL, attention=request.param, longest_pair=120)
    rng = np.random.default_rng(0)
    params = {
        name: jnp.asarray(
            0.1 * rng.standard_normal(leaf.shape, dtype=np.float32) + name.endswith("scale")
        )
        for name, leaf in sorted(fns.shapes.items())
    }
    trainable, frozen = split_trainable(params, TRAINED)
    loss_fn = losses.language_loss(fns, features=_features)
    step = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))

    def run(batch):
        (loss, _), gradients = step(trainable, frozen, dense_targets(batch), None)
        return float(loss), gradients

    return run


def test_a_lost_record_is_as_one_without_targets(
    records_dir, records_copy, tokenizer, loss_and_gradients
):
    flip(records_copy)
    options = dict(audio_tokens=AUDIO, rows_per_batch=8, **LAYOUTS["packed"])
    whole = open_pipeline(records_dir, tokenizer, **options)
    damaged = open_pipeline(records_copy, tokenizer, **options)
    batch, wanted = with_labels(damaged.batch(0)), with_labels(whole.batch(0))
    assert len(damaged.bad) == 1
    # The truth: real audio and text of the victim, only its labels taken away.
    for row in range(8):
        segment = 0
        for clip, pairs in whole.contents(row):
            for _ in pairs:
                segment += 1
                if clip == VICTIM:
                    wanted["labels"][row][wanted["segment_ids"][row] == segment] = IGNORE
    loss, gradients = loss_and_gradients(batch)
    expected, truth = loss_and_gradients(wanted)
    assert np.isfinite(loss) and loss == pytest.approx(expected, rel=1e-6)
    for path, gradient in truth.items():
        limit = 1e-5 * float(np.abs(gradient).max())
        np.testing.assert_allclose(gradients[path], gradient, atol=limit, rtol=0, err_msg=path)


def test_a_batch_of_nothing_but_lost_records_has_loss_and_gradient_zero(
    records_copy, tokenizer, loss_and_gradients
):
    for number in range(7):
        flip(records_copy, f"train_{number}")
    options = dict(audio_tokens=AUDIO, rows_per_batch=8, max_bad_share=1, **LAYOUTS["packed"])
    pipeline = open_pipeline(records_copy, tokenizer, **options)
    loss, gradients = loss_and_gradients(with_labels(pipeline.batch(0)))
    assert loss == 0 and all((np.asarray(leaf) == 0).all() for leaf in gradients.values())
    assert len(pipeline.bad) == 7
