"""Official LTU-AS state dicts: the golden one in every spelling, over every base, and damaged."""

import json

import jax
import numpy as np
import pytest
import tiny_models as tiny
import torch
from safetensors.numpy import load_file, save_file

from ltu_jax.convert import export_weights, import_weights
from ltu_jax.core.errors import UserError
from ltu_jax.models.ltu_as import LTUAS, LTUASConfig
from ltu_jax.models.text_batch import TextBatch
from ltu_jax.weights.formats import hf_rope, official_ltu_as
from ltu_jax.weights.lineage import is_adapter
from ltu_jax.weights.store import load_weights, save_weights
from ltu_jax.weights.tensors import WeightsError

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
        llama=tiny.write_config(folder),
        out=folder / "ours",
        audio_layers=6,
    )


def _import(tmp_path, arrays, **changes):
    """Import a state dict given as arrays; returns the opened weights."""
    save_file({n: np.ascontiguousarray(a) for n, a in arrays.items()}, tmp_path / "w.safetensors")
    if "llama" not in changes:
        changes["llama"] = tiny.write_config(tmp_path)
    import_weights(
        "ltu-as",
        weights=[tmp_path / "w.safetensors"],
        out=tmp_path / "ours",
        **({"audio_layers": 6} | changes),
    )
    return load_weights(tmp_path / "ours", kind="ltu-as")


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
    fns = LTUAS.functional(LTUASConfig.from_dict(weights.config))
    batch = np.load(golden_dir / "forward.npz")
    ids, mask = batch["in.input_ids"], batch["in.attention_mask"]
    text = TextBatch(
        input_ids=ids,
        segment_ids=mask[:, 25:].astype(np.int32),
        positions=np.broadcast_to(np.arange(mask.shape[1]), mask.shape),
    )
    forward = jax.jit(fns.pure(LTUAS.__call__))
    found = forward(dict(weights.params), text, batch["in.audio_input"])
    np.testing.assert_allclose(found, batch["out.logits"], atol=1e-4)


@pytest.mark.parametrize("out", ["back.safetensors", "back.bin", "folder"])
def test_golden_round_trip_is_bit_identical(imported, official, tmp_path, out):
    export_weights("ltu-as", checkpoint=imported, out=tmp_path / out)
    if out == "back.bin":
        state = torch.load(tmp_path / out, weights_only=True)
        found = {name: value.numpy() for name, value in state.items()}
    else:
        found = load_file(tmp_path / ("folder/ltu_as.safetensors" if out == "folder" else out))
    tiny.identical(found, official)
    assert sorted(path.name for path in tmp_path.iterdir()) == [out]


def test_an_exported_directory_is_its_own_config(imported, tmp_path):
    export_weights("ltu-as", checkpoint=imported, out=tmp_path / "folder")
    import_weights(
        "ltu-as",
        weights=[tmp_path / "folder"],
        llama=tmp_path / "folder",
        out=tmp_path / "again",
    )
    assert load_weights(tmp_path / "again").sha256 == load_weights(imported).sha256


@pytest.mark.parametrize("prefix", ["base_model.model.", ""])
@pytest.mark.parametrize("default", [".default.", "."])
@pytest.mark.parametrize("part", ["complete", "trained"])
def test_every_spelling_is_the_same_model(imported, official, tmp_path, prefix, default, part):
    arrays = {
        prefix + name.removeprefix(ROOT).replace(".default.", default): array
        for name, array in official.items()
        if part == "complete" or "lora" in name or "audio" in name
    }
    changes = {} if part == "complete" else {"llama": _base(imported, tmp_path)}
    assert _import(tmp_path, arrays, **changes).sha256 == load_weights(imported).sha256


def test_a_state_dict_of_later_peft(imported, official, tmp_path):
    adapted = ("q_proj.weight", "v_proj.weight")
    arrays = {
        n.replace("_proj.weight", "_proj.base_layer.weight") if n.endswith(adapted) else n: a
        for n, a in official.items()
    }
    assert len(set(arrays) - set(official)) == 6
    assert _import(tmp_path, arrays).sha256 == load_weights(imported).sha256


def test_a_peft_directory_has_an_importer_of_its_own(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(WeightsError, match="is a PEFT adapter directory; import it with `--from p"):
        official_ltu_as.from_official(tmp_path, base=tmp_path)


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
        llama=tiny.write_config(tmp_path),
        out=tmp_path / "b",
        audio_layers=6,
    )
    assert load_weights(tmp_path / "b").sha256 == wanted
    name = "model.norm.weight"
    with pytest.raises(WeightsError, match="there twice"):
        _import(tmp_path, official | {name: official[ROOT + name]})


def test_the_number_of_audio_layers_may_be_unknown(official, tmp_path):
    weights = _import(tmp_path, official, audio_layers=None)
    fns = LTUAS.functional(LTUASConfig.from_dict(weights.config))
    for layers in (2, 6):
        features = np.ones((1, layers, 25, 48), np.float32)
        embed = fns.pure(LTUAS.embed_audio)
        assert jax.eval_shape(embed, dict(weights.params), features).shape[1] == 25


def _base(imported, tmp_path, **files):
    weights = load_weights(imported)
    base = {p: a for p, a in weights.params.items() if not is_adapter(p)}
    save_weights(
        tmp_path / "base", kind="llama", config=weights.config["llama"], params=base, source={},
        files=files,
    )  # fmt: skip
    return tmp_path / "base"


def test_trainer_checkpoints_over_a_base(imported, official, tmp_path, golden):
    pieces = (golden / "text_cases" / "spm320.model").read_bytes()
    base = _base(imported, tmp_path, **{"tokenizer.model": pieces})
    trained = {n: a for n, a in official.items() if "lora" in n or "audio" in n}
    full = load_weights(imported)
    found = _import(tmp_path, trained, llama=base)
    assert found.sha256 == full.sha256 and found.tokenizer_dir is not None
    export_weights("ltu-as", checkpoint=imported, out=tmp_path / "t.safetensors", adapter_only=True)
    tiny.identical(load_file(tmp_path / "t.safetensors"), trained)

    stage1 = {n: a for n, a in official.items() if "audio" in n}
    assert len(stage1) == 32
    found = _import(tmp_path, stage1, llama=base)
    assert found.config["lora"] is None
    assert set(found.params) == {p for p in full.params if ".lora_" not in p}

    with pytest.raises(WeightsError, match="only the trained part.*must be a directory"):
        _import(tmp_path, trained)


@pytest.mark.parametrize("trained_in", ["160 names", "stage 1"])
def test_a_hugging_face_directory_is_a_base(imported, official, tmp_path, trained_in):
    export_weights("hf", checkpoint=_base(imported, tmp_path), out=tmp_path / "hf")
    trained = {
        name: array
        for name, array in official.items()
        if "audio" in name or ("lora" in name and trained_in == "160 names")
    }
    found = _import(tmp_path, trained, llama=tmp_path / "hf")
    wanted = load_weights(imported)
    tiny.identical(
        dict(found.params),
        {p: a for p, a in wanted.params.items() if found.config["lora"] or ".lora_" not in p},
    )
    assert found.config["llama"] == wanted.config["llama"]


def test_a_base_is_not_read_before_its_numbers_are_asked_for(imported, official, tmp_path):
    base = _base(imported, tmp_path)
    export_weights("hf", checkpoint=base, out=tmp_path / "hf")
    trained = {n: np.ascontiguousarray(a) for n, a in official.items() if "audio" in n}
    save_file(trained, tmp_path / "w.safetensors")
    for folder in (base, tmp_path / "hf"):
        found = official_ltu_as.from_official(
            tmp_path / "w.safetensors", base=folder, audio_layers=6
        )
        _, params = tiny.opened(found, "ltu-as")
        kernel = params["llama.layers.mlp.up_proj.kernel"]
        # a layer alone can be read, and that is how a conversion streams it
        assert kernel.rows is not None
        np.testing.assert_array_equal(
            kernel.layer(1), official[f"{ROOT}model.layers.1.mlp.up_proj.weight"].T
        )


def test_without_default_as_peft_writes_on_disk(imported, official, tmp_path):
    weights = load_weights(imported)
    found = official_ltu_as.to_official(weights.config, weights.params.tensors, spelling="peft")
    tiny.identical(
        tiny.numbers(found), {n.replace(".default.", "."): a for n, a in official.items()}
    )
    assert _import(tmp_path, tiny.numbers(found)).sha256 == weights.sha256


def test_alpha_beside_the_file_is_read_and_checked(official, tmp_path):
    beside = tmp_path / "adapter_config.json"
    settings = {"peft_type": "LORA", "r": 8, "lora_alpha": 32, "lora_dropout": 0.2}
    settings["target_modules"] = ["q_proj", "v_proj"]
    beside.write_text(json.dumps(settings))
    lora = _import(tmp_path, official).config["lora"]
    assert (lora["alpha"], lora["dropout"]) == (32.0, 0.2)
    assert _import(tmp_path, official, lora_alpha=4.0).config["lora"]["alpha"] == 4.0
    beside.write_text(json.dumps(settings | {"use_rslora": True}))
    with pytest.raises(WeightsError, match="use_rslora is True: a scale of alpha / sqrt"):
        _import(tmp_path, official)


@pytest.mark.parametrize("head_dim", [16, 64, 80, 128])
@pytest.mark.parametrize("theta", [10_000.0, 100_000.0, 500_000.0, 1_000_000.0])
def test_inverse_frequencies_are_those_of_pytorch(head_dim, theta):
    truth = 1.0 / (theta ** (torch.arange(0, head_dim, 2).float() / head_dim))
    found = hf_rope.inverse_frequencies(head_dim=head_dim, theta=theta)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, truth.numpy(), rtol=2e-7)
    if theta == 10_000.0:  # the official models
        np.testing.assert_array_equal(found, truth.numpy())


def _errors(official):
    q = f"{ROOT}model.layers.0.self_attn.q_proj"
    yield "missing", lambda d: d.pop(f"{q}.weight"), {}, "1 missing|not complete LLaMA"
    yield (
        "lora", lambda d: d.pop(f"{q}.lora_A.default.weight"), {}, "1 missing: .*lora_A.default",
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
    yield (
        "matrix",
        lambda d: d.update({f"{ROOT}model.audio_proj.1.weight": np.ones(64, np.float32)}),
        {},
        r"audio_proj.1.weight is \[64\], not a matrix",
    )
    yield "theta", lambda d: None, {"rope_theta": 5000.0}, "belongs to rope_theta 10000, the config"
    yield "heads", lambda d: None, {"num_attention_heads": 8}, "inv_freq has 8 values, expected 4"
    yield "eps", lambda d: None, {"rms_norm_eps": None}, "the config has no rms_norm_eps"
    yield "hidden", lambda d: None, {"hidden_size": 4096}, "a width-64 checkpoint over a 7B base"


@pytest.mark.parametrize("number", range(10))
def test_what_does_not_fit_is_explained(official, tmp_path, number):
    name, damage, settings, message = list(_errors(official))[number]
    arrays = dict(official)
    damage(arrays)
    with pytest.raises(UserError, match=message):
        _import(tmp_path, arrays, llama=tiny.write_config(tmp_path, **settings))
    assert not (tmp_path / "ours").exists()


def test_another_base_width_is_named(imported, official, tmp_path):
    base = _base(imported, tmp_path)
    trained = {n: a for n, a in official.items() if "audio" in n}
    trained[f"{ROOT}model.audio_proj.1.weight"] = np.zeros((5120, 48), np.float32)
    with pytest.raises(WeightsError, match="this is a 13B checkpoint over a width-64 base"):
        _import(tmp_path, trained, llama=base)


def test_gpt2_is_named(tmp_path):
    with pytest.raises(WeightsError, match="weights of another architecture: found gpt2"):
        _import(tmp_path, {"h.0.attn.c_attn.weight": np.ones((3, 9), np.float32)})
