"""Official LTU-AS state dicts: the golden one, the 7B names, and merged models in transformers."""

import json

import jax
import numpy as np
import pytest
import tiny_models as tiny
import torch
import transformers
from safetensors.numpy import load_file, save_file

from ltu_jax.convert import export_weights, import_weights, model_shapes
from ltu_jax.core.errors import UserError
from ltu_jax.models import build
from ltu_jax.models.ltu_as import LTUASConfig
from ltu_jax.weights import llama, ltu_as
from ltu_jax.weights.io import WeightsError
from ltu_jax.weights.store import load_weights, save_weights

ROOT = "base_model.model."


@pytest.fixture(scope="module")
def official(golden_dir):
    return load_file(golden_dir / "weights.safetensors")


@pytest.fixture(scope="module")
def golden_dir():
    from pathlib import Path

    return Path(__file__).resolve().parent.parent / "golden" / "ltu_as_tiny_a"


@pytest.fixture(scope="module")
def imported(golden_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    return import_weights(
        "ltu-as",
        weights=[golden_dir / "weights.safetensors"],
        llama_from=tiny.write_config(folder),
        out=folder / "ours",
        audio_layers=6,
    )


def _import(tmp_path, arrays, **changes):
    """Import a state dict given as arrays; returns the opened weights."""
    save_file({n: np.ascontiguousarray(a) for n, a in arrays.items()}, tmp_path / "w.safetensors")
    if "llama_from" not in changes:
        changes["llama_from"] = tiny.write_config(tmp_path)
    import_weights(
        "ltu-as",
        weights=[tmp_path / "w.safetensors"],
        out=tmp_path / "ours",
        **({"audio_layers": 6} | changes),
    )
    return load_weights(tmp_path / "ours", kind="ltu-as")


def _identical(found, wanted):
    assert found.keys() == wanted.keys()
    for name, array in found.items():
        assert array.dtype == wanted[name].dtype and array.shape == wanted[name].shape, name
        assert array.tobytes() == wanted[name].tobytes(), name


def test_golden_config_is_read_from_the_shapes(imported):
    config = LTUASConfig.from_dict(load_weights(imported).config)
    sizes = config.llama
    assert (sizes.vocab_size, sizes.hidden_size, sizes.intermediate_size) == (320, 64, 172)
    assert (sizes.num_hidden_layers, sizes.head_dim, sizes.num_key_value_heads) == (3, 16, 4)
    assert config.tltr.d_model == 48 and config.audio_tokens == 25
    assert (config.tltr.time_heads, config.tltr.layer_heads) == (1, 8)
    assert (config.lora.rank, config.lora.alpha) == (8, 16.0)
    assert config.lora.targets == ("q_proj", "v_proj")


def test_golden_logits_from_the_imported_weights(imported, golden_dir):
    weights = load_weights(imported)
    fns = build.ltu_as(LTUASConfig.from_dict(weights.config))
    batch = np.load(golden_dir / "forward.npz")
    ids, mask = batch["in.input_ids"], batch["in.attention_mask"]
    found = jax.jit(fns.forward)(
        dict(weights.params),
        ids,
        batch["in.audio_input"],
        segment_ids=mask[:, 25:].astype(np.int32),
        positions=np.broadcast_to(np.arange(mask.shape[1]), mask.shape),
    )
    np.testing.assert_allclose(found, batch["out.logits"], atol=1e-4)


@pytest.mark.parametrize("out", ["back.safetensors", "back.bin", "folder"])
def test_golden_round_trip_is_bit_identical(imported, official, tmp_path, out):
    export_weights("ltu-as", checkpoint=imported, out=tmp_path / out)
    if out == "back.bin":
        state = torch.load(tmp_path / out, weights_only=True)
        found = {name: value.numpy() for name, value in state.items()}
    else:
        found = load_file(tmp_path / ("folder/ltu_as.safetensors" if out == "folder" else out))
    _identical(found, official)
    assert sorted(path.name for path in tmp_path.iterdir()) == [out]


def test_an_exported_directory_is_its_own_config(imported, tmp_path):
    export_weights("ltu-as", checkpoint=imported, out=tmp_path / "folder")
    import_weights(
        "ltu-as",
        weights=[tmp_path / "folder"],
        llama_from=tmp_path / "folder",
        out=tmp_path / "again",
    )
    assert load_weights(tmp_path / "again").sha256 == load_weights(imported).sha256


def test_other_spellings_of_the_names(imported, official, tmp_path):
    wanted = load_weights(imported).sha256
    short = {
        n.removeprefix(ROOT).replace(".default.", "."): a
        for n, a in official.items()
        if "inv_freq" not in n
    }
    assert _import(tmp_path, short).sha256 == wanted
    torch.save({n: torch.from_numpy(a.copy()) for n, a in official.items()}, tmp_path / "w.bin")
    import_weights(
        "ltu-as",
        weights=[tmp_path / "w.bin"],
        llama_from=tiny.write_config(tmp_path),
        out=tmp_path / "b",
        audio_layers=6,
    )
    assert load_weights(tmp_path / "b").sha256 == wanted
    name = "model.norm.weight"
    with pytest.raises(WeightsError, match="there twice"):
        _import(tmp_path, official | {name: official[ROOT + name]})


def test_the_number_of_audio_layers_may_be_unknown(official, tmp_path):
    weights = _import(tmp_path, official, audio_layers=None)
    fns = build.ltu_as(LTUASConfig.from_dict(weights.config))
    for layers in (2, 6):
        assert fns.embed_audio(dict(weights.params), np.ones((1, layers, 25, 48))).shape[1] == 25


def _base(imported, tmp_path):
    weights = load_weights(imported)
    base = {p: a for p, a in weights.params.items() if not ltu_as.is_adapter(p)}
    save_weights(
        tmp_path / "base", kind="llama", config=weights.config["llama"], params=base, source={},
        files={"tokenizer.json": "{}"},
    )  # fmt: skip
    return tmp_path / "base"


def test_trainer_checkpoints_over_a_base(imported, official, tmp_path):
    base = _base(imported, tmp_path)
    trained = {n: a for n, a in official.items() if "lora" in n or "audio" in n}
    full = load_weights(imported)
    found = _import(tmp_path, trained, llama_from=base)
    assert found.sha256 == full.sha256 and found.tokenizer_dir is not None
    export_weights("ltu-as", checkpoint=imported, out=tmp_path / "t.safetensors", adapter_only=True)
    _identical(load_file(tmp_path / "t.safetensors"), trained)

    stage1 = {n: a for n, a in official.items() if "audio" in n}
    assert len(stage1) == 32
    found = _import(tmp_path, stage1, llama_from=base)
    assert found.config["lora"] is None
    assert set(found.params) == {p for p in full.params if ".lora_" not in p}

    with pytest.raises(WeightsError, match="only the trained part.*must be a weights directory"):
        _import(tmp_path, trained)


def _config_7b(imported):
    config = load_weights(imported).config
    return {
        "tltr": config["tltr"] | {"d_model": 1280},
        "llama": tiny.as_dict(build.LLAMA_SIZES["llama-7b"]),
        "lora": config["lora"],
        "audio_layers": 32,
        "audio_tokens": 25,
    }


def test_names_and_shapes_at_7b(imported, golden):
    truth = json.loads((golden / "ltu_as_7b_names.json").read_text())
    config, shapes = model_shapes("ltu-as", _config_7b(imported))
    found = ltu_as.official_shapes(config, shapes)
    assert len(found) == 483
    assert found == {n: tuple(s) for n, s in truth["peft_state_dict"].items()}
    trained = ltu_as.official_shapes(config, shapes, adapter_only=True)
    (saved,) = (v for k, v in truth.items() if k.startswith("saved_by_trainer_stage2_3"))
    assert len(trained) == 160 and set(trained) == set(saved)
    config, shapes = model_shapes("ltu-as", _config_7b(imported) | {"lora": None})
    stage1 = ltu_as.official_shapes(config, shapes, adapter_only=True)
    assert len(stage1) == 32 and set(stage1) == set(truth["saved_by_trainer_stage1"])
    plain = {n.removeprefix(ROOT): s for n, s in ltu_as.official_shapes(config, shapes).items()}
    assert plain == {n: tuple(s) for n, s in truth["base_state_dict_no_peft"].items()}


@pytest.mark.parametrize("head_dim", [16, 64, 80, 128])
@pytest.mark.parametrize("theta", [10_000.0, 100_000.0, 500_000.0, 1_000_000.0])
def test_inverse_frequencies_are_those_of_pytorch(head_dim, theta):
    truth = 1.0 / (theta ** (torch.arange(0, head_dim, 2).float() / head_dim))
    found = llama.inverse_frequencies(head_dim=head_dim, theta=theta)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, truth.numpy(), rtol=2e-7)
    if theta == 10_000.0:  # the official models
        np.testing.assert_array_equal(found, truth.numpy())


def _errors(official):
    q = f"{ROOT}model.layers.0.self_attn.q_proj"
    yield "missing", lambda d: d.pop(f"{q}.weight"), {}, "1 missing|not complete LLaMA"
    yield (
        "lora", lambda d: d.pop(f"{q}.lora_A.default.weight"), {}, "lora_B.default.weight",
    )  # fmt: skip
    yield "surplus", lambda d: d.update(extra=np.ones(2)), {}, f"1 surplus: {ROOT}extra"
    yield (
        "shape",
        lambda d: d.update({f"{ROOT}model.norm.weight": np.ones(65, np.float32)}),
        {},
        r"norm.weight is \[65\], expected \[64\]",
    )
    yield (
        "ltu",
        lambda d: [d.pop(n) for n in list(d) if "audio_encoder" in n],
        {},
        "Likely cause: this is LTU, not LTU-AS",
    )
    yield "theta", lambda d: None, {"rope_theta": 5000.0}, "belongs to rope_theta 10000, the config"
    yield "heads", lambda d: None, {"num_attention_heads": 8}, "inv_freq has 8 values, expected 4"
    yield "eps", lambda d: None, {"rms_norm_eps": None}, "the config has no rms_norm_eps"
    yield "hidden", lambda d: None, {"hidden_size": 4096}, "a width-64 checkpoint over a 7B base"


@pytest.mark.parametrize("number", range(9))
def test_what_does_not_fit_is_explained(official, tmp_path, number):
    name, damage, settings, message = list(_errors(official))[number]
    arrays = dict(official)
    damage(arrays)
    with pytest.raises(UserError, match=message):
        _import(tmp_path, arrays, llama_from=tiny.write_config(tmp_path, **settings))
    assert not (tmp_path / "ours").exists()


def test_another_base_width_is_named(imported, official, tmp_path):
    base = _base(imported, tmp_path)
    trained = {n: a for n, a in official.items() if "audio" in n}
    trained[f"{ROOT}model.audio_proj.1.weight"] = np.zeros((5120, 48), np.float32)
    with pytest.raises(WeightsError, match="this is a 13B checkpoint over a width-64 base"):
        _import(tmp_path, trained, llama_from=base)


def test_gpt2_is_named(tmp_path):
    with pytest.raises(WeightsError, match="weights of another architecture: found gpt2"):
        _import(tmp_path, {"h.0.attn.c_attn.weight": np.ones((3, 9), np.float32)})


CASES = {
    "plain": ({}, ("q_proj", "v_proj")),
    "tied": ({"tie_word_embeddings": True}, ("q_proj", "k_proj", "o_proj", "gate_proj")),
    "biases": ({"attention_bias": True}, ("v_proj", "up_proj", "down_proj")),
    "no-lora": ({}, ()),
}


@pytest.fixture(params=CASES)
def random_model(request, tmp_path):
    changes, targets = CASES[request.param]
    config = tiny.ltu_as_config(tiny.llama_config(**changes), targets=targets)
    fns = build.ltu_as(config)
    params = tiny.random_params(fns)
    save_weights(
        tmp_path / "ours", kind="ltu-as", config=tiny.as_dict(config), params=params, source={}
    )
    return config, fns, params, tmp_path / "ours"


def test_merged_model_gives_our_logits(random_model, tmp_path):
    config, fns, params, folder = random_model
    export_weights("hf", checkpoint=folder, out=tmp_path / "hf")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    rng = np.random.default_rng(3)
    ids = rng.integers(0, 96, (2, 9))
    features = rng.standard_normal((2, 2, 25, 16)).astype(np.float32)
    ours = jax.jit(fns.forward)(
        params,
        ids,
        features,
        segment_ids=np.ones_like(ids),
        positions=np.broadcast_to(np.arange(34), (2, 34)),
    )
    embeds = np.concatenate([fns.embed_audio(params, features), fns.embed_text(params, ids)], 1)
    with torch.no_grad():
        truth = model(inputs_embeds=torch.from_numpy(embeds)).logits[:, 25:].numpy()
    np.testing.assert_allclose(ours, truth, atol=1e-4)
    if config.lora:  # the adapters are not negligible here
        plain = {p: a for p, a in params.items() if ".lora_" not in p}
        assert ltu_as.Merged(tiny.as_dict(config), params).keys() == {
            p for p in plain if p.startswith("llama.")
        }
        name = f"llama.layers.{llama.projection(config.lora.targets[0])}.kernel"
        delta = ltu_as.Merged(tiny.as_dict(config), params)[name] - params[name]
        assert np.abs(delta).max() > 0.1


@pytest.mark.parametrize("base", ["ours", "folder"])
def test_random_models_round_trip_officially(random_model, tmp_path, base):
    config, _, params, folder = random_model
    export_weights("ltu-as", checkpoint=folder, out=tmp_path / "folder")
    state = load_file(tmp_path / "folder" / "ltu_as.safetensors")
    assert f"{ROOT}lm_head.weight" in state  # PyTorch lists a tied output too
    import_weights(
        "ltu-as",
        weights=[tmp_path / "folder"],
        llama_from=tmp_path / base,
        out=tmp_path / "again",
    )
    found = load_weights(tmp_path / "again")
    _identical(dict(found.params), params)
    assert found.sha256 == load_weights(folder).sha256
    assert LTUASConfig.from_dict(found.config) == config


def test_a_training_checkpoint_is_exported_with_its_base(tmp_path):
    from ltu_jax.training import checkpoint
    from ltu_jax.training.state import TrainState
    from ltu_jax.weights.store import base_entry

    config = tiny.ltu_as_config(tiny.llama_config())
    params = tiny.random_params(build.ltu_as(config))
    adapter = {path: array for path, array in params.items() if ltu_as.is_adapter(path)}
    base = {path: array for path, array in params.items() if not ltu_as.is_adapter(path)}
    save_weights(
        tmp_path / "base", kind="llama", config=tiny.as_dict(config.llama), params=base, source={}
    )
    run = tmp_path / "run"
    step = run / "checkpoints" / "7"
    entry = base_entry(load_weights(tmp_path / "base"), relative_to=step)
    checkpoint.save(
        run,
        state=TrainState(step=np.asarray(7), trainable=adapter, opt_state={}),
        adapter=adapter,
        metadata={
            "kind": "ltu-as-checkpoint", "model": tiny.as_dict(config), "base": {"llama": entry},
        },
        keep=1,
    )  # fmt: skip
    export_weights("ltu-as", checkpoint=run, out=tmp_path / "x.safetensors")
    found = load_file(tmp_path / "x.safetensors")
    wanted = dict(
        ltu_as.to_official(
            tiny.as_dict(config), params, model_shapes("ltu-as", tiny.as_dict(config))[1]
        )
    )
    _identical(found, wanted)
    (tmp_path / "base").rename(tmp_path / "gone")
    with pytest.raises(WeightsError, match="language model of .* is missing"):
        export_weights("hf", checkpoint=run, out=tmp_path / "hf")
