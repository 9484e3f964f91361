"""The program of a stage from its settings: FLOPs against a count of its products, batch shapes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from ltu_jax.core.errors import UserError
from ltu_jax.core.sharding import MeshConfig, make_mesh
from ltu_jax.models.llama import LlamaConfig
from ltu_jax.models.text_batch import TARGET_IDS, TARGET_POSITIONS, with_targets
from ltu_jax.models.tltr import TLTRConfig
from ltu_jax.models.whisper import WhisperConfig
from ltu_jax.planning.traced import gradient_flops, jaxpr_flops, saved_bytes
from ltu_jax.training import program
from ltu_jax.training.flops import StepWork, count_work, model_flops
from ltu_jax.training.stage_config import stage_settings

ROWS, TEXT, AUDIO = 2, 24, 25
LABELS = 11


def settings(stage, **compute):
    """A stage of a model with the proportions of the real one, but tiny."""
    plain = common.base(stage, recipe="").to_dict()
    found = stage_settings_of(plain, stage)
    whisper = WhisperConfig(
        n_mels=20, n_audio_ctx=1500, n_audio_state=32, n_audio_head=2, n_audio_layer=3,
        n_vocab=50, n_text_ctx=16, n_text_state=32, n_text_head=2, n_text_layer=1,
    )  # fmt: skip
    llama = LlamaConfig(
        vocab_size=128, hidden_size=48, intermediate_size=96, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, head_dim=12, rms_norm_eps=1e-6,
        rope_theta=1e4, rope_scaling=None, tie_word_embeddings=False, attention_bias=False,
    )  # fmt: skip
    tagging = stage == "tagging"
    model = dataclasses.replace(
        found.model,
        whisper=whisper,
        tltr=TLTRConfig(d_model=32, time_heads=1, layer_heads=2),
        llama=None if tagging else llama,
        lora=found.model.lora if stage in ("stage2", "stage3") else None,
    )
    return dataclasses.replace(
        found,
        model=model,
        data=dataclasses.replace(found.data, rows_per_batch=ROWS, clips_per_row=1),
        mesh=MeshConfig(data=1, fsdp=1, tensor=1),
        compute=dataclasses.replace(found.compute, **{"remat": "none", **compute}),
    )


def stage_settings_of(plain, stage):
    if stage == "tagging":
        plain["model"]["llama"] = plain["model"]["lora"] = None
        plain["data"]["layout"] = "tags"
        plain["trainable"] = ((r"tltr\..+", True), (r"label_head\..+", True))
    if stage == "stage1":
        plain["model"]["lora"] = None
        plain["trainable"] = common.PROJECTION_ONLY
    return stage_settings(plain)


def with_features(found, features):
    return dataclasses.replace(found, data=dataclasses.replace(found.data, features=features))


def program_of(found):
    mesh = make_mesh(found.mesh, jax.devices()[:1])
    return program.make_program(found, mesh=mesh, steps=1000, text_length=TEXT, labels=LABELS)


def full_work(found):
    tagging = found.stage == "tagging"
    text = 0 if tagging else ROWS * TEXT
    return StepWork(
        clips=ROWS,
        pairs=0 if tagging else ROWS,
        audio_tokens=ROWS * AUDIO,
        text_tokens=text,
        targets=0 if tagging else ROWS * (TEXT - 1),
    )


@pytest.mark.parametrize("stage", ["tagging", "stage1", "stage3"])
@pytest.mark.parametrize("features", ["stored", "on_the_fly"])
def test_formula_is_the_count_of_all_products(stage, features):
    # The formula has no name for what "blocks" leaves out, nor for the bfloat16 RoPE permutation.
    found = with_features(settings(stage, attention="xla", dtype="float32"), features)
    made = program_of(found)
    counted = gradient_flops(made, accumulation=1)
    assert model_flops(made.size, full_work(found)) == pytest.approx(counted, rel=0.02)


def test_recomputing_adds_a_forward_pass_of_the_layers():
    plain = program_of(with_features(settings("stage3"), "stored"))
    again = program_of(with_features(settings("stage3", remat="full"), "stored"))
    extra = gradient_flops(again, accumulation=1) - gradient_flops(plain, accumulation=1)
    forward = jax.make_jaxpr(plain.loss_fn)(
        plain.state.trainable, plain.frozen, plain.batch, plain.key
    )
    assert 0.6 < extra / jaxpr_flops(forward.jaxpr) <= 1.0
    assert saved_bytes(again, accumulation=1) < 0.5 * saved_bytes(plain, accumulation=1)


def test_micro_rows_go_with_the_official_layout_alone():
    stage = settings("stage3")

    def having(layout):
        data = dataclasses.replace(
            stage.data, layout=layout, micro_rows=1, pairs_per_clip=1, lengths=()
        )
        return dataclasses.replace(stage, data=data)

    with pytest.raises(UserError, match="data.micro_rows is 1, but layout 'single'"):
        program.data_config(having("single"))
    assert program.data_config(having("reference")).micro_rows == 1
    # Rows of another layout for validation have none.
    assert program.data_config(having("reference"), layout="single").micro_rows == 0


def test_micro_batches_do_the_same_work():
    made = program_of(with_features(settings("stage3"), "stored"))
    whole = gradient_flops(made, accumulation=1)
    assert gradient_flops(made, accumulation=2) == pytest.approx(whole)
    assert saved_bytes(made, accumulation=2) < 0.6 * saved_bytes(made, accumulation=1)


def test_products_of_a_jaxpr_are_counted_by_hand():
    def both(x, w):
        def body(carry, one):
            return jnp.tanh(carry @ one), None

        x = jax.lax.scan(body, x, w)[0]
        return jax.lax.cond(x.sum() > 0, lambda x: x @ x.T @ x, lambda x: x, x)

    jaxpr = jax.make_jaxpr(both)(jnp.ones((4, 8)), jnp.ones((5, 8, 8)))
    assert jaxpr_flops(jaxpr.jaxpr) == 5 * 2 * 4 * 8 * 8 + 2 * (2 * 4 * 8 * 4)


@pytest.mark.parametrize("features", ["stored", "on_the_fly"])
def test_batch_shapes_are_those_that_the_loss_gets(features):
    found = with_features(settings("stage3"), features)
    made = program_of(found)
    rng = np.random.default_rng(0)
    batch = {
        name: np.zeros(leaf.shape, leaf.dtype)
        for name, leaf in made.batch.items()
        if name not in (TARGET_POSITIONS, TARGET_IDS)
    }
    batch["labels"] = rng.integers(0, 128, (ROWS, TEXT))
    located = with_targets(batch)
    assert {n: (x.shape, x.dtype) for n, x in located.items()} == {
        n: (x.shape, x.dtype) for n, x in made.batch.items()
    }


def test_the_abstract_program_runs_on_arrays_of_its_shapes():
    found = with_features(settings("stage3", dtype="float32"), "stored")
    made = program_of(found)

    def zeros(leaf):
        return jnp.zeros(leaf.shape, leaf.dtype)

    state, frozen, batch = (
        jax.tree.map(zeros, part) for part in (made.state, made.frozen, made.batch)
    )
    after, metrics = made.step_fn(state, frozen, batch, jax.random.key(0))
    assert int(after.step) == 1 and np.isfinite(float(metrics["loss"]))


def test_pairs_of_a_batch_are_counted_by_their_segments():
    segments = np.array([[1, 1, 2, 2, 2, 0], [0, 0, 1, 1, 1, 1], [1, 2, 3, 3, 0, 0]])
    work = count_work(
        {"log_mel": np.zeros((3, 1)), "segment_ids": segments}, audio_tokens=25, parts=1
    )
    assert (work.clips, work.pairs, work.text_tokens) == (3, 6, 13)


@pytest.mark.parametrize(
    "rules, told",
    [
        (((r"tltr\..+", True),), "no rule matches .* audio_proj.bias"),
        (((r".+", True), (r"tltr\..+", False)), r"1 rules match no parameter: tltr\\.\.\+"),
        (((r"tltr\.(.+", True),), "missing \\)"),
    ],
)
def test_tables_that_do_not_fit_are_named(rules, told):
    params = {"tltr.norm.scale": 1, "audio_proj.bias": 2}
    found = settings("stage3")
    wrong = dataclasses.replace(found, trainable=rules)
    with pytest.raises(UserError, match=f"config.trainable: {told}"):
        program.split_parameters(params, wrong)
    rates = tuple((pattern, 1.0) for pattern, _ in rules)
    optimizer = dataclasses.replace(found.optimizer, group_multipliers=rates)
    with pytest.raises(UserError, match=f"config.optimizer.group_multipliers: {told}"):
        program.stage_optimizer(
            dataclasses.replace(found, optimizer=optimizer), paths=params, steps=1
        )
