"""Out and in again over random configs: every format gives back every fact and every bit."""

import dataclasses
import json

import ml_dtypes
import numpy as np
import peft
import pytest
import random_configs
import tiny_models as tiny
import torch
import transformers
from safetensors.numpy import load_file, save_file

from ltu_jax.convert import export_weights, import_weights
from ltu_jax.models.llama import Llama
from ltu_jax.models.ltu_as import LTUAS
from ltu_jax.models.whisper import Whisper, WhisperConfig
from ltu_jax.weights import export_record
from ltu_jax.weights.formats import hf_llama
from ltu_jax.weights.formats.official_ltu_as import merge_lora
from ltu_jax.weights.lineage import is_adapter
from ltu_jax.weights.name_tables import export
from ltu_jax.weights.store import load_weights, save_weights
from ltu_jax.weights.tensors import WeightsError, as_tensors

LISTENER = WhisperConfig(
    n_mels=8, n_audio_ctx=50, n_audio_state=16, n_audio_head=2, n_audio_layer=2,
    n_vocab=51864, n_text_ctx=8, n_text_state=16, n_text_head=2, n_text_layer=1,
)  # fmt: skip


# tied and not, with biases and without, RoPE scaled or not, widths that heads do not divide, audio
# layers unknown; LoRA of rank 1, of alpha 0.3, on all seven projections, and none
SEEDS = (9, 14, 17, 20, 37)


def _ltu_as(folder, seed):
    """A random LTU-AS in whole/ and its LLaMA in base/."""
    config = random_configs.ltu_as(np.random.default_rng(seed))
    params = tiny.random_params(LTUAS.functional(config), seed=seed)
    tiny.save(folder / "whole", "ltu-as", config, params)
    base = {path: array for path, array in params.items() if not is_adapter(path)}
    tiny.save(folder / "base", "llama", config.llama, base)
    return config, params


# (--to, options, name of --out, --from, whether the base is needed again)
WAYS = {
    "file": ("ltu-as", {}, "x.safetensors", "ltu-as", False),
    "pickle": ("ltu-as", {}, "x.bin", "ltu-as", False),
    "folder": ("ltu-as", {}, "x", "ltu-as", False),
    "peft names": ("ltu-as", {"lora_names": "peft"}, "x.pt", "ltu-as", False),
    "over a base": ("ltu-as", {}, "x.safetensors", "ltu-as", True),
    "trained part": ("ltu-as", {"adapter_only": True}, "x.safetensors", "ltu-as", True),
    "trained pickle": ("ltu-as", {"adapter_only": True}, "x.bin", "ltu-as", True),
    "trained folder": ("ltu-as", {"adapter_only": True}, "x", "ltu-as", True),
    "peft": ("peft", {"base_name": "somebody/model"}, "x", "peft", True),
}


@pytest.mark.parametrize("seed", SEEDS)
def test_ltu_as_comes_back_from_every_format(tmp_path, seed):
    config, _ = _ltu_as(tmp_path, seed)
    wanted = load_weights(tmp_path / "whole").sha256
    tied = config.llama.tie_word_embeddings
    for name, (to, options, out, source, over) in WAYS.items():
        if to == "peft" and config.lora is None:
            continue
        path = tmp_path / name / out
        export_weights(to, checkpoint=tmp_path / "whole", out=path, **options)
        given = {"llama": tmp_path / "base"} if over else {}
        import_weights(source, weights=[path], out=tmp_path / name / "again", **given)
        again = load_weights(tmp_path / name / "again", kind="ltu-as")
        assert again.config == tiny.as_dict(config), name
        assert again.sha256 == wanted, name
        if name == "file" and tied:  # PyTorch lists a tied output too
            assert "base_model.model.lm_head.weight" in load_file(path)


@pytest.mark.parametrize("seed", [9, 37])
def test_ltu_as_comes_back_as_a_run(tmp_path, seed):
    config = random_configs.ltu_as(np.random.default_rng(seed))
    tltr = dataclasses.replace(config.tltr, d_model=16, time_heads=2, layer_heads=4)
    config = dataclasses.replace(config, tltr=tltr, audio_layers=2)
    params = tiny.random_params(LTUAS.functional(config))
    tiny.save(tmp_path / "whole", "ltu-as", config, params)
    base = {path: array for path, array in params.items() if not is_adapter(path)}
    tiny.save(tmp_path / "base", "llama", config.llama, base)
    zeros = {p: np.zeros(leaf.shape, "f4") for p, leaf in Whisper(LISTENER).shapes.items()}
    tiny.save(tmp_path / "whisper", "whisper", LISTENER, zeros)
    export_weights(
        "orbax", checkpoint=tmp_path / "whole", out=tmp_path / "run", llama=tmp_path / "base",
        whisper=tmp_path / "whisper",
    )  # fmt: skip
    import_weights("orbax", weights=[tmp_path / "run"], out=tmp_path / "again")
    assert load_weights(tmp_path / "again").sha256 == load_weights(tmp_path / "whole").sha256


@pytest.mark.parametrize("seed", [2, 3, 5, 6, 10, 17])
def test_llamas_come_back_and_transformers_reads_the_same_config(tmp_path, seed):
    config = random_configs.llama(np.random.default_rng(seed))
    params = tiny.random_params(Llama.functional(config), seed=seed)
    tiny.save(tmp_path / "ours", "llama", config, params)
    export_weights("hf", checkpoint=tmp_path / "ours", out=tmp_path / "hf")
    import_weights("hf-llama", weights=[tmp_path / "hf"], out=tmp_path / "again")
    assert load_weights(tmp_path / "again").sha256 == load_weights(tmp_path / "ours").sha256
    read = transformers.AutoConfig.from_pretrained(tmp_path / "hf")
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "hf", output_loading_info=True
    )
    assert not any(report.values()), report
    assert sum(value.numel() for value in model.parameters()) == sum(
        array.size for array in params.values()
    )
    assert read.rope_parameters["rope_theta"] == config.rope_theta
    assert read.rope_parameters["rope_type"] == ("llama3" if config.rope_scaling else "default")
    assert getattr(read, "sliding_window", None) is None


@pytest.mark.parametrize("seed", [9, 20])
def test_merged_models_are_plain_llamas(tmp_path, seed):
    config, params = _ltu_as(tmp_path, seed)
    export_weights("hf", checkpoint=tmp_path / "whole", out=tmp_path / "hf")
    found = load_file(tmp_path / "hf" / "model.safetensors")
    plain = merge_lora(tiny.as_dict(config), as_tensors(params))
    tiny.identical(found, tiny.numbers(export(hf_llama.HF_RULES, plain)))
    import_weights("hf-llama", weights=[tmp_path / "hf"], out=tmp_path / "again")
    again = load_weights(tmp_path / "again")
    assert again.config == tiny.as_dict(config.llama)
    tiny.identical(dict(again.params), tiny.numbers(plain))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize("seed", [9, 20, 37])
def test_peft_and_the_merged_model_give_the_same_logits(tmp_path, seed):
    config, _ = _ltu_as(tmp_path, seed)
    export_weights("hf", checkpoint=tmp_path / "base", out=tmp_path / "base in hf")
    export_weights("hf", checkpoint=tmp_path / "whole", out=tmp_path / "merged")
    export_weights("peft", checkpoint=tmp_path / "whole", out=tmp_path / "adapter", base_name="x")
    load = transformers.AutoModelForCausalLM.from_pretrained
    model = peft.PeftModel.from_pretrained(load(tmp_path / "base in hf"), tmp_path / "adapter")
    size = config.llama.vocab_size
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, size, (2, 9)))
    with torch.no_grad():
        found, truth = load(tmp_path / "merged").eval()(ids).logits, model.eval()(ids).logits
    np.testing.assert_allclose(found.numpy(), truth.numpy(), atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("way", ["hf", "openai-whisper"])
def test_whispers_come_back(tmp_path, seed, way):
    config = random_configs.whisper(np.random.default_rng(seed), one_width=way == "hf")
    params = tiny.random_params(Whisper(config), seed=seed)
    tiny.save(tmp_path / "ours", "whisper", config, params)
    out = tmp_path / ("hf" if way == "hf" else "x.pt")
    export_weights(way, checkpoint=tmp_path / "ours", out=out)
    source = "hf-whisper" if way == "hf" else way
    import_weights(source, weights=[out], out=tmp_path / "again")
    assert load_weights(tmp_path / "again").sha256 == load_weights(tmp_path / "ours").sha256


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("way", ["file", "trained part", "peft"])
def test_rounded_is_rounded_once(tmp_path, dtype, way):
    _, params = _ltu_as(tmp_path, 9)
    to, options, out, source, over = WAYS[way]
    export_weights(to, checkpoint=tmp_path / "whole", out=tmp_path / out, dtype=dtype, **options)
    given = {"llama": tmp_path / "base"} if over else {}
    import_weights(source, weights=[tmp_path / out], out=tmp_path / "again", **given)
    again, kind = load_weights(tmp_path / "again").params, getattr(ml_dtypes, dtype, None)
    kind = np.dtype(dtype if kind is None else kind)
    for path, array in params.items():
        wanted = array.astype(kind) if is_adapter(path) or not over else array
        assert again[path].tobytes() == wanted.tobytes(), path


def test_every_fact_is_perturbed_somewhere():
    """The generators above must reach another value of every field of every config."""
    seen: dict[str, set[str]] = {}
    for seed in range(60):
        rng = np.random.default_rng(seed)
        made = [random_configs.ltu_as(rng), random_configs.whisper(rng, one_width=False)]
        for config in made:
            for key, value in _flat(dataclasses.asdict(config)):
                seen.setdefault(f"{type(config).__name__}.{key}", set()).add(repr(value))
    constant = {key.partition(".")[2] for key, values in seen.items() if len(values) < 2}
    # the first two are seen as None here, and by their fields where they are not
    assert constant == {"lora", "llama.rope_scaling", "llama.rope_scaling.low_freq_factor"}


def _flat(tree, path=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


# ---- contradictions ------------------------------------------------------------------------------


@pytest.fixture
def odd(tmp_path):
    """The issue's model: alpha 32, rank 4 on q, k and o; TLTR with 2 and 4 heads."""
    config = tiny.ltu_as_config(tiny.llama_config(), targets=("q_proj", "k_proj", "o_proj"))
    config = dataclasses.replace(
        config,
        lora=dataclasses.replace(config.lora, alpha=32.0),
        tltr=dataclasses.replace(config.tltr, time_heads=2, layer_heads=4),
    )
    tiny.save(tmp_path / "whole", "ltu-as", config, tiny.random_params(LTUAS.functional(config)))
    return config


def test_what_the_official_code_has_otherwise_is_said(odd, tmp_path, capsys):
    export_weights("ltu-as", checkpoint=tmp_path / "whole", out=tmp_path / "x.safetensors")
    told = capsys.readouterr().out
    for fact in ("LoRA alpha 32.0 (there 16.0)", "LoRA rank 4", "TLTR time heads 2 (there 1)"):
        assert fact in told


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"lora_alpha": 16.0}, "lora.alpha is 16.0 by --lora-alpha and 32.0 by the record"),
        ({"audio_layers": 9}, "audio_layers is 9 by --audio-layers and 2 by the record"),
        ({"lora_alpha": float("nan")}, "--lora-alpha nan"),
    ],
)
@pytest.mark.parametrize("out", ["x.safetensors", "x.bin", "x"])
def test_an_option_that_contradicts_the_record_is_an_error(odd, tmp_path, out, given, named):
    export_weights("ltu-as", checkpoint=tmp_path / "whole", out=tmp_path / out)
    with pytest.raises(WeightsError, match=named):
        import_weights("ltu-as", weights=[tmp_path / out], out=tmp_path / "again", **given)
    assert not (tmp_path / "again").exists()
    import_weights(
        "ltu-as", weights=[tmp_path / out], out=tmp_path / "again", audio_layers=2, lora_alpha=32.0
    )
    assert load_weights(tmp_path / "again").config == tiny.as_dict(odd)


def test_a_language_model_that_contradicts_the_record_is_an_error(odd, tmp_path):
    export_weights("ltu-as", checkpoint=tmp_path / "whole", out=tmp_path / "x.bin")
    other = tiny.write_config(
        tmp_path, num_attention_heads=4, num_key_value_heads=2, head_dim=8, rope_theta=7.0
    )
    with pytest.raises(WeightsError, match=r"rms_norm_eps 1e-05; .*llama.json has 1e-06"):
        import_weights("ltu-as", weights=[tmp_path / "x.bin"], llama=other, out=tmp_path / "again")
    config = dataclasses.replace(odd, lora=dataclasses.replace(odd.lora, alpha=5.0))
    tiny.save(tmp_path / "other", "ltu-as", config, tiny.random_params(LTUAS.functional(config)))
    with pytest.raises(
        WeightsError, match=r"lora.alpha is 32.0 by the record.* and 5.0 by --llama"
    ):
        import_weights(
            "ltu-as", weights=[tmp_path / "x.bin"], llama=tmp_path / "other", out=tmp_path / "again"
        )


def test_a_state_dict_that_lost_its_record_is_not_guessed(odd, tmp_path):
    export_weights("ltu-as", checkpoint=tmp_path / "whole", out=tmp_path / "x.safetensors")
    save_file(load_file(tmp_path / "x.safetensors"), tmp_path / "saved_again.safetensors")
    settings = tiny.as_dict(odd)["llama"]
    (tmp_path / "config.json").write_text(json.dumps(settings))
    given = {"llama": tmp_path / "config.json", "out": tmp_path / "again"}
    with pytest.raises(WeightsError, match="rank 4 on q_proj, k_proj, o_proj.*--lora-alpha ALPHA"):
        import_weights("ltu-as", weights=[tmp_path / "saved_again.safetensors"], **given)
    import_weights(
        "ltu-as", weights=[tmp_path / "saved_again.safetensors"], lora_alpha=32.0, **given
    )
    assert load_weights(tmp_path / "again").config["lora"]["alpha"] == 32.0
    with pytest.raises(WeightsError, match="needs --llama"):
        import_weights(
            "ltu-as", weights=[tmp_path / "saved_again.safetensors"], out=tmp_path / "third"
        )


def test_a_scaled_rope_is_read_from_a_weights_directory_too(tmp_path):
    """`--llama DIR` of ours once lost llama3's scaling: it is spelt otherwise there."""
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 16}  # fmt: skip
    config = tiny.ltu_as_config(
        dataclasses.replace(tiny.llama_config(), rope_scaling=None), targets=()
    )
    wanted = tiny.as_dict(config)
    wanted["llama"]["rope_scaling"] = scaling
    params = tiny.random_params(LTUAS.functional(type(config).from_dict(wanted)))
    save_weights(tmp_path / "whole", kind="ltu-as", config=wanted, params=params, source={})
    export_weights("ltu-as", checkpoint=tmp_path / "whole", out=tmp_path / "x.safetensors")
    save_file(load_file(tmp_path / "x.safetensors"), tmp_path / "y.safetensors")
    import_weights(
        "ltu-as", weights=[tmp_path / "y.safetensors"], llama=tmp_path / "whole",
        out=tmp_path / "again",
    )  # fmt: skip
    assert load_weights(tmp_path / "again").config == wanted


def test_a_peft_folder_refuses_other_audio_layers(odd, tmp_path):
    base = {p: a for p, a in load_weights(tmp_path / "whole").params.items() if not is_adapter(p)}
    tiny.save(tmp_path / "base", "llama", odd.llama, base)
    export_weights("peft", checkpoint=tmp_path / "whole", out=tmp_path / "x", base_name="y")
    with pytest.raises(WeightsError, match="audio_layers is 2 by ltu_as.json and 9 by --audio-l"):
        import_weights(
            "peft", weights=[tmp_path / "x"], llama=tmp_path / "base", audio_layers=9,
            out=tmp_path / "again",
        )  # fmt: skip


def test_a_record_that_was_changed_by_hand(odd, tmp_path):
    export_weights("ltu-as", checkpoint=tmp_path / "whole", out=tmp_path / "x.safetensors")
    arrays = load_file(tmp_path / "x.safetensors")
    good = export_record.read(tmp_path / "x.safetensors").to_json()
    lora, tltr = good["config"]["lora"], good["config"]["tltr"]
    for changed, message in (
        (good | {export_record.KEY: 9}, "not of format 1"),
        (good | {"config": 3}, "the config of its record of ltu_jax is 3"),
        (good | {"config": good["config"] | {"lora": lora | {"rank": 8}}}, "rank 8"),
        (good | {"config": good["config"] | {"lora": lora | {"targets": 5}}}, "targets is 5"),
        (good | {"config": good["config"] | {"lora": None}}, "--lora-alpha"),
        (good | {"config": good["config"] | {"tltr": tltr | {"d_model": 8}}}, "d_model 8"),
        (good | {"facts": {"source_config": 7}}, "source_config is 7"),
        (good | {"facts": {"mood": 7}}, "unknown facts .'mood'"),
    ):
        save_file(arrays, tmp_path / "y.safetensors", {export_record.KEY: json.dumps(changed)})
        with pytest.raises(ValueError, match=message):
            import_weights("ltu-as", weights=[tmp_path / "y.safetensors"], out=tmp_path / "again")
    save_file(arrays, tmp_path / "y.safetensors", {export_record.KEY: "{"})
    with pytest.raises(WeightsError, match="is no JSON"):
        import_weights("ltu-as", weights=[tmp_path / "y.safetensors"], out=tmp_path / "again")
