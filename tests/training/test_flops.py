"""FLOPs against a hand count at 7B."""

import pytest

from ltu_jax.training.flops import ModelSize, StepWork, model_flops


def size_7b(**changes):
    values = dict(
        llm_layers=32 * (4 * 4096**2 + 3 * 4096 * 11008),
        llm_depth=32,
        attention_width=4096,
        vocab_head=32000 * 4096,
        lora=4_194_304,
        tltr_block=12 * 1280**2,
        tltr_width=1280,
        tltr_trained=True,
        tltr_pooled=False,
        audio_proj=1280 * 4096,
        label_head=0,
        whisper_layers=32,
        encoder=0,
        encoder_stem=0,
        encoder_frames=500,
        encoder_depth=32,
        encoder_width=1280,
    )
    return ModelSize(**{**values, **changes})


def work(text):
    return StepWork(clips=1, pairs=1, audio_tokens=25, text_tokens=text, targets=text)


@pytest.mark.parametrize(
    "changes, text, teraflops",
    [  # counted by hand in the performance notes of the original
        ({}, 108, 3.72),
        ({"tltr_trained": False, "lora": 0}, 108, 3.59),
        ({}, 160, 5.12),
    ],
)
def test_model_flops_of_a_7b_sample(changes, text, teraflops):
    found = model_flops(size_7b(**changes), work(text)) / 1e12
    assert found == pytest.approx(teraflops, rel=0.005)


def test_encoder_on_the_fly_costs_two_thirds_of_a_teraflop_a_clip():
    encoder = 12 * 1280**2 * 32
    extra = model_flops(size_7b(encoder=encoder), work(108)) - model_flops(size_7b(), work(108))
    assert extra / 1e12 == pytest.approx(0.676, rel=0.02)


def test_frozen_parts_cost_less():
    trained, frozen = size_7b(), size_7b(tltr_trained=False)
    assert model_flops(trained, work(108)) > model_flops(frozen, work(108))


def test_pairs_that_share_a_clip_attend_to_it_and_to_themselves():
    shared = StepWork(clips=1, pairs=2, audio_tokens=25, text_tokens=200, targets=200)
    assert shared.context == 25 + 100
    alone = StepWork(clips=2, pairs=2, audio_tokens=50, text_tokens=200, targets=200)
    size = size_7b(tltr_block=0, tltr_width=0, audio_proj=0)
    extra = 25 * (4 * size.llm_layers + 6 * size.lora + 12 * 125 * 4096 * 32)
    assert model_flops(size, alone) - model_flops(size, shared) == pytest.approx(extra)
