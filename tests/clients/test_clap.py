"""CLAP against transformers called directly, on a random tiny model that is saved to disk."""

import builtins
import json

import numpy as np
import pytest
import soxr
import tokenizers
import torch
import transformers

from ltu_jax.clients.clap import LABEL_MATCH, ZERO_SHOT, Clap
from ltu_jax.core.errors import UserError

pytestmark = pytest.mark.optimised

LABELS = ("dog", "church bell", "rain", "a man speaks")
TEXTS = [LABEL_MATCH.format(label=label) for label in LABELS]


def save_tiny(path, *, fused):
    """A CLAP that hears 1 s at once, with byte-level RoBERTa tokens."""
    torch.manual_seed(0)
    text = dict(
        vocab_size=300,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=37,
        max_position_embeddings=66,
    )
    audio = dict(
        num_mel_bins=16,
        window_size=4,
        spec_size=64,
        patch_size=4,
        patch_stride=[4, 4],
        hidden_size=64,
        patch_embeds_hidden_size=16,
        depths=[2, 2, 2],
        num_attention_heads=[2, 2, 2],
        num_hidden_layers=3,
        enable_fusion=fused,
        fusion_type=None,
        aff_block_r=2,
    )
    config = transformers.ClapConfig(text_config=text, audio_config=audio, projection_dim=24)
    model = transformers.ClapModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    model.save_pretrained(path)
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {
        word: n for n, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", *letters])
    }
    transformers.RobertaTokenizer(vocab=vocabulary, merges=[]).save_pretrained(path)
    transformers.ClapFeatureExtractor(
        feature_size=16,
        max_length_s=1,
        truncation="fusion" if fused else "rand_trunc",
        padding="repeatpad",
    ).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("clap") / "tiny", fused=False)


@pytest.fixture(scope="module")
def clap(folder):
    return Clap(folder)


def noise(seconds, *, seed):
    """Noise with a colour of its own, at 16 kHz."""
    rng = np.random.default_rng(seed)
    white = rng.standard_normal(int(16_000 * seconds))
    return (0.1 * np.convolve(white, rng.standard_normal(8), mode="same")).astype(np.float32)


def directly(folder, clips, texts, *, rate=48_000):
    """logits / scale of transformers' own forward pass, which normalises both sides."""
    model = transformers.ClapModel.from_pretrained(folder).eval()
    processor = transformers.ClapProcessor.from_pretrained(folder)
    batch = processor.tokenizer(texts, padding=True, return_tensors="pt")
    sounds = processor.feature_extractor(clips, sampling_rate=rate, return_tensors="pt")
    sounds["input_features"] = sounds["input_features"].float()
    sounds.pop("is_longer")
    with torch.no_grad():
        out = model(**batch, **sounds)
        return (out.logits_per_audio / model.logit_scale_a.exp()).numpy(), out.audio_embeds.numpy()


def to_48(clip):
    return soxr.resample(clip, 16_000, 48_000)


def test_scores_are_the_cosines_of_transformers(folder, clap):
    clips = [noise(seconds, seed=n) for n, seconds in enumerate((1.0, 0.4, 0.77))]
    wanted, _ = directly(folder, [to_48(clip) for clip in clips], TEXTS)
    found = clap.scores(clips, TEXTS)
    assert found.shape == (3, 4) and found.dtype == np.float32
    assert np.ptp(found, axis=1).min() > 1e-3  # the tiny model does tell its texts apart
    np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=0)


def test_a_long_clip_is_the_mean_of_its_equal_parts(folder, clap):
    clip = noise(2.3, seed=7)
    parts = np.array_split(to_48(clip), 3)
    _, vectors = directly(folder, parts, TEXTS)
    mean = vectors.mean(0) / np.linalg.norm(vectors.mean(0))
    texts = clap._texts(TEXTS)
    np.testing.assert_allclose(clap.scores([clip], TEXTS)[0], texts @ mean, atol=1e-5, rtol=0)


def test_a_clip_of_many_parts_is_the_same_twice(clap):
    clip = noise(11.5, seed=3)  # more parts than a batch has
    np.testing.assert_array_equal(clap.scores([clip], TEXTS), clap.scores([clip], TEXTS))


def test_a_fused_model_is_not_told_at_random_that_a_clip_is_longer(tmp_path):
    fused = Clap(save_tiny(tmp_path / "fused", fused=True))
    clip = noise(2.3, seed=7)
    np.random.seed(0)
    first = fused.scores([clip], TEXTS)
    np.random.seed(1)
    np.testing.assert_array_equal(fused.scores([clip], TEXTS), first)


def test_the_templates_are_those_of_laion_and_of_the_label_match():
    assert ZERO_SHOT.format(label="dog") == "This is a sound of dog"
    assert LABEL_MATCH.format(label="dog") == "sound of dog"


def test_the_name_is_the_folders(clap):
    assert clap.name == "CLAP (tiny)"


@pytest.mark.parametrize(
    "clips, texts, message",
    [
        ([], TEXTS, "0 clips and 4 texts"),
        ([noise(1, seed=0)], [], "1 clips and 0 texts"),
        ([np.zeros(0, np.float32)], TEXTS, r"shape \[0\]; give one channel"),
        ([np.zeros((9, 2), np.float32)], TEXTS, r"shape \[9, 2\]; give one channel"),
        ([noise(1, seed=0)], ["rain " * 30], "'rain .* has 15. tokens; CLAP takes 64"),
    ],
)
def test_bad_input_is_refused(clap, clips, texts, message):
    with pytest.raises(UserError, match=message):
        clap.scores(clips, texts)


def test_nothing_there_is_one_error(tmp_path):
    with pytest.raises(UserError, match="is no CLAP model that can be opened .*clap-htsat-unfused"):
        Clap(tmp_path)


def test_pickled_weights_alone_are_refused(folder, tmp_path):
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save(transformers.ClapModel.from_pretrained(folder).state_dict(), tmp_path / "p.bin")
    (tmp_path / "p.bin").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="is no CLAP model that can be opened"):
        Clap(tmp_path)


def test_a_missing_parameter_is_not_filled_with_random_numbers(folder, tmp_path):
    from safetensors.numpy import load_file, save_file

    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    del tensors["text_projection.linear1.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="lacks 1 parameters .*text_projection.linear1.weight"):
        Clap(tmp_path)


def test_a_damaged_file_is_one_error(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[:1000])
    for name in ("config.json", "preprocessor_config.json"):
        if (folder / name).exists():
            json.loads((folder / name).read_text())
            (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(UserError, match="is no CLAP model that can be opened"):
        Clap(tmp_path)


def test_without_pytorch_the_error_names_what_to_install(monkeypatch, folder):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "torch":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UserError, match="needs PyTorch: run `pip install torch`"):
        Clap(folder)
