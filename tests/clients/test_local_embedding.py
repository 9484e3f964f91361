"""all-MiniLM-L6-v2 in JAX against transformers' BertModel and tokenizer, on the real weights."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers

from ltu_jax.clients import local_embedding
from ltu_jax.clients.local_embedding import LocalEmbedder
from ltu_jax.core.errors import UserError
from ltu_jax.fetch import fetch_weights

pytestmark = pytest.mark.optimised

TEXTS = (
    "sound of dog",
    'The audio contains the sound of a dog barking, and a man says: "Sit!"',
    "",
    "  \n ",
    "Élan vital: ÜBER naïve café, 東京 タワー, 🐕🐕 l'été",
    "[SEP] a special token [CLS] in a text [MASK]",
    "zero\u0000byte and control \u200b\u0007 letters",
    "supercalifragilisticexpialidocious" * 4,
    "rain " * 100,
    "A train passes by while birds sing. " * 60,  # more than 256 tokens
)


@pytest.fixture(scope="module")
def folder(request):
    return fetch_weights("all-minilm-l6-v2", request.config.rootpath / "assets")


@pytest.fixture(scope="module")
def embedder(folder):
    return LocalEmbedder(folder)


@pytest.fixture(scope="module")
def theirs(folder):
    """Sentence-Transformers' recipe of the model card, by transformers alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.BertModel.from_pretrained(folder).eval()

    def embed(texts):
        batch = tokenizer(
            list(texts), padding=True, truncation=True, max_length=256, return_tensors="pt"
        )
        with torch.no_grad():
            states = model(**batch).last_hidden_state
        mask = batch["attention_mask"][:, :, None]
        mean = (states * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(mean, dim=1).numpy()

    return tokenizer, embed


def test_tokens_are_those_of_transformers(embedder, theirs):
    wanted = theirs[0](list(TEXTS), truncation=True, max_length=256)["input_ids"]
    assert embedder.tokens(TEXTS) == wanted
    assert max(map(len, wanted)) == 256  # of which one text is cut


def test_vectors_are_those_of_transformers(embedder, theirs):
    found = embedder(TEXTS)
    assert found.shape == (len(TEXTS), 384) and found.dtype == np.float32
    np.testing.assert_allclose(found, theirs[1](TEXTS), atol=1e-5, rtol=0)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_a_batch_equals_its_texts_one_by_one(embedder):
    one_by_one = np.concatenate([embedder([text]) for text in TEXTS])
    np.testing.assert_allclose(embedder(TEXTS), one_by_one, atol=1e-6, rtol=0)


def test_few_shapes_are_compiled_whatever_comes(embedder, monkeypatch):
    shapes = set()

    def sentences(params, ids, real):
        shapes.add(ids.shape)
        return np.zeros((len(ids), 384), np.float32)

    monkeypatch.setattr(embedder, "_sentences", sentences)
    rng = np.random.default_rng(0)
    for count in (1, 3, 9, 70, 400):
        embedder(["rain " * int(length) for length in rng.integers(1, 400, count)])
    assert {length for _, length in shapes} <= {16, 32, 64, 128, 256}
    assert {rows for rows, _ in shapes} == {8, 64}


def test_no_texts_are_no_vectors(embedder):
    assert embedder([]).shape == (0, 384)


def test_what_follows_the_cut_changes_nothing(embedder):
    long = "A train passes by while birds sing. " * 60
    np.testing.assert_array_equal(embedder([long]), embedder([long + " A dog barks."]))


def test_the_name_is_the_published_one_and_else_the_folders(embedder, light):
    assert embedder.name == "all-MiniLM-L6-v2"
    (light / "source.json").unlink()
    assert LocalEmbedder(light).name == "light"


def test_identity_changes_with_the_files_that_decide_the_vectors(embedder, light):
    assert LocalEmbedder(light).identity == embedder.identity
    edit(light / "sentence_bert_config.json", max_seq_length=128)
    assert LocalEmbedder(light).identity != embedder.identity


def test_vocab_txt_alone_is_the_same_tokenizer(embedder, light):
    (light / "tokenizer.json").unlink()
    assert LocalEmbedder(light).tokens(TEXTS) == embedder.tokens(TEXTS)


def test_a_cased_vocabulary_keeps_its_case(light):
    (light / "tokenizer.json").unlink()
    edit(light / "tokenizer_config.json", do_lower_case=False)
    upper, lower = LocalEmbedder(light).tokens(["Dog", "dog"])
    assert upper != lower


def test_without_its_length_a_model_takes_all_its_positions(light):
    (light / "sentence_bert_config.json").unlink()
    assert LocalEmbedder(light).max_tokens == 512


@pytest.fixture
def light(folder, tmp_path):
    """A copy whose weights are a link, to be spoilt."""
    copy = tmp_path / "light"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*.safetensors", "*.md", "data_*"))
    (copy / "model.safetensors").symlink_to((folder / "model.safetensors").resolve())
    return copy


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_missing_folder_says_how_to_get_the_model(tmp_path):
    with pytest.raises(UserError, match="python -m ltu_jax.fetch all-minilm-l6-v2"):
        LocalEmbedder(tmp_path / "nothing")


@pytest.mark.parametrize(
    "file, changes, message",
    [
        ("1_Pooling/config.json", dict(pooling_mode_cls_token=True), "only pooling_mode_mean_tok"),
        ("1_Pooling/config.json", dict(pooling_mode_mean_tokens=False), "asks for no pooling"),
        ("sentence_bert_config.json", dict(max_seq_length=600), "max_seq_length is 600; give a w"),
        ("sentence_bert_config.json", dict(do_lower_case=True), "do_lower_case is not impl"),
        ("config.json", dict(vocab_size=30000), "embeddings.word_embeddings.weight"),
        ("config.json", dict(model_type="mpnet"), "found model_type mpnet, expected bert"),
    ],
)
def test_a_model_that_is_computed_otherwise_is_refused(light, file, changes, message):
    edit(light / file, **changes)
    with pytest.raises(UserError, match=message):
        LocalEmbedder(light)


def test_a_further_module_is_refused(light):
    modules = json.loads((light / "modules.json").read_text())
    modules.insert(2, {"type": "sentence_transformers.models.Dense"})
    (light / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UserError, match="its parts are Transformer, Pooling, Dense, Normalize"):
        LocalEmbedder(light)


def test_a_tokenizer_of_another_model_is_refused(light):
    tokenizer = json.loads((light / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["[surplus]"] = 30522
    (light / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(
        UserError, match="its tokenizer has ids up to 30522, the model 30522 tokens"
    ):
        LocalEmbedder(light)


def test_a_folder_without_tokenizer_is_refused(light):
    (light / "tokenizer.json").unlink()
    (light / "vocab.txt").unlink()
    with pytest.raises(UserError, match="no tokenizer.json or vocab.txt here"):
        LocalEmbedder(light)


def test_every_length_gets_the_shortest_bucket_that_holds_it():
    lengths = [3, 16, 17, 250, 200, 100]
    batches = list(local_embedding._batches(lengths, longest=250))
    assert batches == [([0, 1], 16, 8), ([2], 32, 8), ([5], 128, 8), ([3, 4], 250, 8)]
