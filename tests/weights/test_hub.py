"""Weights by their name on the Hugging Face Hub, wherever weights are given; one on loopback."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from configs import stage3
from ltu_jax.convert import import_weights
from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.run.weights_identity import identify
from ltu_jax.inference import load
from ltu_jax.train import resolve
from ltu_jax.training.stage_config import missing_weights, stage_settings
from ltu_jax.weights import places
from ltu_jax.weights.open import base_entry, open_base, open_weights
from ltu_jax.weights.store import Weights
from tests.support import tiny_ltu_as
from tests.support.hub import Hub, served
from tests.weights import tiny_whisper

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def folders(tmp_path_factory, golden):
    """A tiny LTU-AS, its Whisper, and old repositories of pickles, by name."""
    folder = tmp_path_factory.mktemp("repositories")
    tokenizer = golden / "text_cases" / "spm320.model"
    tiny, old = tiny_ltu_as.save(folder, tokenizer=tokenizer), folder / "old"
    (old / "onnx").mkdir(parents=True)
    for name in ("config.json", "tokenizer.model", "pytorch_model.bin", "README.md", "onnx/a.json"):
        (old / name).write_text("{}")
    (tiny["whisper"] / "pytorch_model.bin").write_bytes(b"the same numbers as a pickle")
    named = {"org/ltu-as": tiny["ltu-as"], "org/whisper": tiny["whisper"]}
    return named | {"org/old": old, "org/closed": old}


@pytest.fixture
def hub(folders, tmp_path):
    with served(folders, cache=tmp_path / "hub", gated=frozenset({"org/closed"})) as hub:
        yield hub


def same(one: Weights, other: Weights) -> bool:
    return one.sha256 == other.sha256 and all(
        np.array_equal(one.params[path], other.params[path]) for path in one.params
    )


def test_load_and_evaluate_take_names(hub, folders):
    model, whisper = folders["org/ltu-as"], folders["org/whisper"]
    local = load(model, whisper=whisper)
    fetched = load("hf:org/ltu-as", whisper="hf:org/whisper@v1.1")
    for path, leaf in local.params.items():
        assert np.array_equal(leaf, fetched.params[path])
    assert local.listener.params.keys() == fetched.listener.params.keys()
    here, _ = identify(model, bases={"whisper": whisper})
    there, _ = identify(Path("hf:org/ltu-as"), bases={"whisper": Path("hf:org/whisper")})
    assert there.pop("path") == f"hf:org/ltu-as@{hub.commit('org/ltu-as')}"
    assert here.pop("path") and here == there
    assert "pytorch_model.bin" not in hub.fetched()


def test_a_checkpoint_names_its_base_by_commit_and_finds_it_without_a_network(hub, folders):
    weights = open_weights("hf:org/whisper@v1.1", kind="whisper")
    assert same(weights, open_weights(folders["org/whisper"]))
    entry = base_entry(weights, relative_to="runs/a/checkpoints/4")
    name = f"hf:org/whisper@{hub.commit('org/whisper')}"
    assert entry["path"] == entry["absolute_path"] == name
    hub.close()
    assert same(open_base(entry, relative_to="runs/a/checkpoints/4", subject="Whisper"), weights)
    assert open_weights("hf:org/whisper@v1.1").address == name


def test_a_stage_takes_names_of_weights(hub):
    config = stage3.get_config("mini")
    names = {"llama": "hf:org/llama@v1.1", "whisper": "hf:org/whisper", "tltr": "hf:org/tltr"}
    given = {f"weights.{name}": value for name, value in names.items()}
    with config.unlocked():
        config.update_from_flattened_dict(given)
    (plain,) = resolve(config)
    settings = stage_settings(plain)
    assert missing_weights(settings) is None
    assert settings.weights.llama == names["llama"]
    plain["weights"]["tltr"] = "hf:nobody"
    with pytest.raises(UserError, match="config.weights.tltr hf:nobody"):
        stage_settings(plain)


def test_pickles_are_fetched_only_where_there_is_nothing_else(hub):
    found = places.find("hf:org/old", option="--weights")
    assert {path.name for path in found.path.rglob("*")} == {
        "config.json", "tokenizer.model", "pytorch_model.bin",
    }  # fmt: skip
    found = places.find("hf:org/whisper", option="--tokenizer", numbers=False)
    assert not list(found.path.glob("*.safetensors"))


def test_of_a_tokenizer_no_numbers_are_fetched(hub, tmp_path):
    absent = tmp_path / "absent.gguf"
    with pytest.raises(UserError, match="absent.gguf"):
        import_weights("gguf", weights=[absent], tokenizer="hf:org/whisper", out=tmp_path / "out")
    assert "config.json" in hub.fetched()
    assert not [name for name in hub.fetched() if name.endswith(".safetensors")]


@pytest.mark.parametrize(
    "name",
    ["hf:org/none", "hf:org/closed", "hf:org/old@v9", "hf:org/old::absent.bin",
     "hf:vicuna", "hf:", "hf:a/b/c", "hf:a/b@"],
)  # fmt: skip
def test_what_cannot_be_fetched_is_named(hub, name):
    with pytest.raises(UserError, match=name) as error:
        places.find(name, option="--llama")
    assert str(error.value).startswith("--llama hf:")


def test_the_library_takes_its_settings_from_the_environment(tmp_path):
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "tokenizer.model").write_bytes(b"tokens")
    hub = Hub({"org/tiny": tmp_path / "repo"})
    script = (
        "from ltu_jax.weights.places import find\n"
        "print(find('hf:org/tiny@v1.1::tokenizer.model', option='--tokenizer').path)\n"
    )
    try:
        ended = subprocess.run(
            [sys.executable, "-c", script],
            env={
                **os.environ,
                "HF_ENDPOINT": hub.address,
                "HF_HOME": str(tmp_path / "home"),
                "HF_HUB_OFFLINE": "0",
                "HF_HUB_DISABLE_XET": "1",
                "PYTHONPATH": str(ROOT),
            },
            capture_output=True,
            text=True,
            timeout=300,
        )
    finally:
        hub.close()
    assert ended.returncode == 0, ended.stderr
    path = Path(ended.stdout.strip())
    assert path.is_relative_to(tmp_path / "home") and path.read_bytes() == b"tokens"


def test_a_whisper_of_hugging_face_is_read_as_it_lies(tmp_path):
    model = tiny_whisper.hf_model()
    model.save_pretrained(tmp_path / "whisper")
    weights = open_weights(tmp_path / "whisper", kind="whisper")
    embedding = model.state_dict()["model.decoder.embed_tokens.weight"].numpy()
    assert np.array_equal(weights.params["decoder.embedding"], embedding)
    with pytest.raises(UserError, match="whisper"):
        open_weights(tmp_path / "whisper", kind="llama")
