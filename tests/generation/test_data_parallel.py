"""Batches over several devices give the answers, features and transcripts of one device."""

import jax
import numpy as np
import pytest

import ltu_jax
from ltu_jax.generation.data_parallel import DataParallel
from ltu_jax.generation.loading import load_transcriber
from ltu_jax.generation.request import Request
from ltu_jax.generation.sampling import SamplingConfig
from tests.support import tiny_ltu_as

QUESTIONS = ("What is this?", "Who speaks?", "Is it loud?", "What can be inferred from the audio?")


def test_rows_are_padded_to_what_the_devices_divide():
    sizes = (1, 2, 4, 8, 12)
    assert [DataParallel(jax.devices()[:3]).padded(n, sizes) for n in (1, 2, 4, 5, 13)] == [
        *(3, 3, 6, 9, 24)
    ]
    assert [DataParallel().padded(n, sizes) for n in (1, 3, 13)] == [1, 4, 24]


def test_leading_axes_are_laid_over_the_devices_and_scalars_copied():
    data_parallel = DataParallel(jax.devices()[:4])
    rows, scalar = data_parallel.rows((np.arange(8.0).reshape(8, 1), np.float32(2)))
    assert {shard.data.shape for shard in rows.addressable_shards} == {(2, 1)}
    assert scalar.sharding.is_fully_replicated
    whole = data_parallel.copies({"w": np.ones((3, 5))})["w"]
    assert len(whole.addressable_shards) == 4
    assert {shard.data.shape for shard in whole.addressable_shards} == {(3, 5)}


@pytest.fixture(scope="module")
def models(golden, tmp_path_factory):
    """A model on one device, and the same over four."""
    folder = tmp_path_factory.mktemp("weights")
    made = tiny_ltu_as.save(folder, tokenizer=golden / "text_cases" / "spm320.model")
    one = ltu_jax.load(made["ltu-as"], whisper=made["whisper"])
    return one, one.over(jax.devices()[:4])


@pytest.mark.parametrize("sampled", [False, True])
def test_answers_are_those_of_one_device(models, sampled):
    one, several = models
    generator = np.random.default_rng(0)
    clips = [generator.normal(scale=0.1, size=16_000).astype(np.float32) for _ in range(3)]
    features = one.audio_features_batch(clips)
    np.testing.assert_allclose(several.audio_features_batch(clips), features, atol=1e-5)
    requests = [
        Request(question=question, spoken_text="", audio_features=features[index % 3])
        for index, question in enumerate(QUESTIONS * 2)
    ]
    sampling = None
    if sampled:
        sampling = [
            SamplingConfig(temperature=1.0, top_p=0.9, top_k=50, repetition_penalty=1.1, seed=seed)
            for seed in range(len(requests))
        ]
    settings = {"max_new_tokens": 12, "sampling": sampling, "batch_size": 5}
    expected = one.answer_batch(requests, **settings)
    found = several.answer_batch(requests, **settings)
    assert [answer.tokens for answer in found] == [answer.tokens for answer in expected]
    assert several.answer(clips[0], QUESTIONS[0], spoken_text="", max_new_tokens=8) == one.answer(
        clips[0], QUESTIONS[0], spoken_text="", max_new_tokens=8
    )


def test_transcripts_are_those_of_one_device(whisper_tiny_dir, golden):
    transcriber = load_transcriber(whisper_tiny_dir)
    pcm = np.load(golden / "whisper_tiny_random" / "jfk.npz")["pcm16k"]
    speech = pcm.astype(np.float32) / 32768
    clips = [speech[: 16_000 * seconds] for seconds in (4, 8, 11)]
    alone = [one.text for one in transcriber.transcribe(clips, batch_size=4)]
    data_parallel = transcriber.over(DataParallel(jax.devices()[:2]))
    assert [one.text for one in data_parallel.transcribe(clips, batch_size=4)] == alone
    assert alone[2].startswith("And so my fellow Americans")
