"""What a source said and we do not use comes out of every export as it went in."""

import json

import numpy as np
import pytest
import tiny_models as tiny
import tokenizers
import torch
import transformers

from ltu_jax import checkpoint
from ltu_jax.convert import export_weights, import_weights, info, parser, run
from ltu_jax.models.llama import Llama
from ltu_jax.models.ltu_as import LTUAS
from ltu_jax.models.whisper import Whisper, WhisperConfig
from ltu_jax.weights import export_record
from ltu_jax.weights.formats import hf_llama
from ltu_jax.weights.lineage import is_adapter
from ltu_jax.weights.open import base_entry
from ltu_jax.weights.store import load_weights, save_weights

LLAMA3 = {
    "factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192, "rope_type": "llama3",
}  # fmt: skip
ENDS = {"eos_token_id": [2, 5, 6], "bos_token_id": 1, "temperature": 0.6}
# name -> (sizes of ours, what config.json says besides, generation_config.json)
ROWS = {
    "llama 3, three ends": (
        {"rope_theta": 500000.0, "rope_scaling": {k: v for k, v in LLAMA3.items() if k[0] != "r"}},
        {"rope_theta": 500000.0, "rope_scaling": LLAMA3, "max_position_embeddings": 131072,
         "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": [2, 5, 6]},
        ENDS,
    ),
    "the spelling of transformers 5": (
        {"rope_theta": 500000.0, "rope_scaling": {k: v for k, v in LLAMA3.items() if k[0] != "r"}},
        {"rope_parameters": {"rope_theta": 500000.0, **LLAMA3}, "dtype": "bfloat16",
         "max_position_embeddings": 131072},
        None,
    ),
    "pad -1": ({}, {"rope_theta": 50000.0, "pad_token_id": -1, "max_position_embeddings": 64},
               None),
    "pad null, ends null": (
        {}, {"rope_theta": 50000.0, "pad_token_id": None, "eos_token_id": None}, {"top_p": 0.9},
    ),
    "no theta, no positions": ({"rope_theta": 10000.0}, {}, None),
    "theta an integer": ({"rope_theta": 10000.0}, {"rope_theta": 10000, "rope_scaling": None}, {}),
    "mistral with a window": (
        {}, {"model_type": "mistral", "rope_theta": 50000.0, "sliding_window": 4096,
             "max_position_embeddings": 4096}, None,
    ),
    "mistral of odd width": (
        {"hidden_size": 30}, {"model_type": "mistral", "rope_theta": 50000.0,
                              "sliding_window": None}, None,
    ),
    "qwen2, a window that is off": (
        {"attention_bias": True},
        {"model_type": "qwen2", "rope_theta": 50000.0, "use_sliding_window": False,
         "sliding_window": 131072, "max_window_layers": 21, "max_position_embeddings": 131072,
         "eos_token_id": 7}, {"eos_token_id": [7, 3], "repetition_penalty": 1.05},
    ),
    "tied": ({"tie_word_embeddings": True},
             {"rope_theta": 50000.0, "max_position_embeddings": 8192}, None),
    "odd vocabulary": ({"vocab_size": 41}, {"rope_theta": 5e4, "torch_dtype": "bfloat16"}, None),
    "training's settings": (
        {}, {"rope_theta": 50000.0, "attention_dropout": 0.1, "initializer_range": 0.04,
             "pretraining_tp": 2, "use_cache": False, "transformers_version": "4.28.0"}, None,
    ),
    "unknown words": ({}, {"rope_theta": 50000.0, "my_lab": {"seed": [1, 2]}, "notes": "x"}, None),
}  # fmt: skip


def _hugging_face(folder, name):
    """A Hugging Face directory whose config.json is a row of the table; its settings."""
    sizes, said, generation = ROWS[name]
    config = tiny.llama_config(**sizes)
    params = tiny.random_params(Llama.functional(config))
    tiny.save(folder / "made", "llama", config, params)
    export_weights("hf", checkpoint=folder / "made", out=folder / "hf")
    keys = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim",
        "num_attention_heads", "num_key_value_heads", "rms_norm_eps", "tie_word_embeddings",
    )  # fmt: skip
    family = said.get("model_type", "llama")
    settings = {key: tiny.as_dict(config)[key] for key in keys} | {
        "model_type": family,
        "architectures": [hf_llama.CLASSES[family]],
        **said,
    }
    (folder / "hf" / "config.json").write_text(json.dumps(settings))
    (folder / "hf" / export_record.FILE).unlink()
    if generation is not None:
        (folder / "hf" / "generation_config.json").write_text(json.dumps(generation))
    _tokenizer(folder / "hf")
    return config, settings, generation


def _tokenizer(folder):
    words = {"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    for name, value in {
        "tokenizer_config.json": names | {"tokenizer_class": "PreTrainedTokenizerFast"},
        "special_tokens_map.json": names,
        "added_tokens.json": {"<s>": 1},
    }.items():
        (folder / name).write_text(json.dumps(value))
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m }}{% endfor %}")


FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja",
)  # fmt: skip


def _carried(folder, settings, generation, *, dtype=None):
    found = json.loads((folder / "config.json").read_text())
    dtypes = {"dtype", "torch_dtype"}
    for key, value in settings.items():
        assert found[key] == (dtype if dtype and key in dtypes else value), key
    file = folder / "generation_config.json"
    assert file.is_file() == (generation is not None)
    assert generation is None or json.loads(file.read_text()) == generation
    return found


@pytest.mark.parametrize("name", ROWS)
def test_a_language_model_keeps_what_its_config_said(tmp_path, name):
    config, settings, generation = _hugging_face(tmp_path, name)
    import_weights("hf-llama", weights=[tmp_path / "hf"], out=tmp_path / "ours")
    assert load_weights(tmp_path / "ours").config == tiny.as_dict(config)
    export_weights("hf", checkpoint=tmp_path / "ours", out=tmp_path / "back")
    found = _carried(tmp_path / "back", settings, generation)
    assert ("max_position_embeddings" in found) == ("max_position_embeddings" in settings)
    for file in FILES:
        assert (tmp_path / "back" / file).read_bytes() == (tmp_path / "hf" / file).read_bytes()
    # transformers reads the same of both
    first, back = (
        transformers.AutoConfig.from_pretrained(tmp_path / folder).to_dict()
        for folder in ("hf", "back")
    )
    fresh = {"attention_bias", "mlp_bias", "bos_token_id", "eos_token_id", "pad_token_id",
             "architectures", "_name_or_path", "transformers_version", "dtype"}  # fmt: skip
    assert {k: v for k, v in first.items() if k not in fresh} == {
        k: v for k, v in back.items() if k not in fresh and k in first
    }
    import_weights("hf-llama", weights=[tmp_path / "back"], out=tmp_path / "again")
    assert load_weights(tmp_path / "again").sha256 == load_weights(tmp_path / "ours").sha256
    export_weights("hf", checkpoint=tmp_path / "again", out=tmp_path / "third", dtype="float16")
    _carried(tmp_path / "third", settings, generation, dtype="float16")


def _whole(folder, config):
    """LTU-AS over hf/: PEFT adapter in adapter/."""
    whole = tiny.ltu_as_config(config)
    params = tiny.random_params(LTUAS.functional(whole))
    held = load_weights(folder / "made").params
    params |= dict(held)
    tiny.save(folder / "whole", "ltu-as", whole, params)
    export_weights("peft", checkpoint=folder / "whole", out=folder / "adapter",
                   base_name=str(folder / "hf"))  # fmt: skip
    return whole


@pytest.mark.parametrize("name", ["llama 3, three ends", "mistral with a window"])
def test_an_adapter_s_base_is_carried_through_every_format(tmp_path, name):
    config, settings, generation = _hugging_face(tmp_path, name)
    _whole(tmp_path, config)
    import_weights("peft", weights=[tmp_path / "adapter"], out=tmp_path / "0")
    ways = [("x.safetensors", {}), ("x.bin", {}), ("x", {}), ("y.bin", {"adapter_only": True})]
    for number, (out, options) in enumerate(ways):
        export_weights("ltu-as", checkpoint=tmp_path / str(number), out=tmp_path / out, **options)
        given = {"llama": tmp_path / "hf"} if options else {}
        again = tmp_path / str(number + 1)
        import_weights("ltu-as", weights=[tmp_path / out], out=again, **given)
        export_weights("hf", checkpoint=again, out=tmp_path / f"hf {number}")
        stored = "float32"  # the kernels are no longer the source's
        _carried(tmp_path / f"hf {number}", settings, generation, dtype=stored)
    _carried(tmp_path / "x", settings, generation, dtype="float32")


def test_a_folder_without_the_source_s_words_is_exported_as_before(tmp_path, capsys):
    config = tiny.llama_config()
    tiny.save(tmp_path / "ours", "llama", config, tiny.random_params(Llama.functional(config)))
    export_weights("hf", checkpoint=tmp_path / "ours", out=tmp_path / "hf")
    assert "number of positions is not known" in capsys.readouterr().out
    found = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert "max_position_embeddings" not in found and found["model_type"] == "llama"
    assert not (tmp_path / "hf" / "generation_config.json").exists()


@pytest.mark.parametrize(
    ("stored", "word", "written"),
    [(np.float16, "bfloat16", "bfloat16"), (np.float32, "bfloat16", "bfloat16"),
     (np.float16, "float16", "float16"), (np.float32, "float16", "float32"),
     (np.float16, "auto", "float16"), (np.float16, ["x"], "float16"),
     (np.float32, None, "float32")],
)  # fmt: skip
def test_the_source_s_dtype_is_carried_unless_numbers_could_become_infinite(
    tmp_path, stored, word, written
):
    config = tiny.llama_config()
    params = {
        path: array.astype(stored)
        for path, array in tiny.random_params(Llama.functional(config)).items()
    }
    save_weights(tmp_path / "ours", kind="llama", config=tiny.as_dict(config), params=params,
                 source={}, facts={"source_config": {"torch_dtype": word}})  # fmt: skip
    export_weights("hf", checkpoint=tmp_path / "ours", out=tmp_path / "hf")
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["torch_dtype"] == written


def test_a_width_that_heads_do_not_divide_computes_the_same(tmp_path):
    config = tiny.llama_config(hidden_size=30)
    params = tiny.random_params(Llama.functional(config))
    tiny.save(tmp_path / "ours", "llama", config, params)
    export_weights("hf", checkpoint=tmp_path / "ours", out=tmp_path / "hf")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    ids = np.random.default_rng(0).integers(0, 96, (2, 9))
    with torch.no_grad():
        truth = model(torch.from_numpy(ids)).logits.numpy()
    np.testing.assert_allclose(tiny.logits(config, params, ids), truth, atol=1e-4)


# ---- Whisper -------------------------------------------------------------------------------------

LISTENER = WhisperConfig(
    n_mels=8, n_audio_ctx=50, n_audio_state=16, n_audio_head=2, n_audio_layer=2,
    n_vocab=51865, n_text_ctx=8, n_text_state=16, n_text_head=2, n_text_layer=1,
)  # fmt: skip


def test_a_whisper_keeps_what_its_configs_said(tmp_path):
    params = tiny.random_params(Whisper(LISTENER))
    tiny.save(tmp_path / "made", "whisper", LISTENER, params)
    export_weights("hf", checkpoint=tmp_path / "made", out=tmp_path / "hf")
    settings = json.loads((tmp_path / "hf" / "config.json").read_text()) | {
        "dropout": 0.1, "apply_spec_augment": True, "median_filter_width": 5, "max_length": 448,
        "pad_token_id": 50256, "suppress_tokens": [1, 2], "torch_dtype": "bfloat16",
    }  # fmt: skip
    (tmp_path / "hf" / "config.json").write_text(json.dumps(settings))
    generation = {"alignment_heads": [[0, 1]], "eos_token_id": 50257, "is_multilingual": True}
    (tmp_path / "hf" / "generation_config.json").write_text(json.dumps(generation))
    import_weights("hf-whisper", weights=[tmp_path / "hf"], out=tmp_path / "0")
    export_weights("openai-whisper", checkpoint=tmp_path / "0", out=tmp_path / "x.pt")
    import_weights("openai-whisper", weights=[tmp_path / "x.pt"], out=tmp_path / "1")
    for number in (0, 1):
        export_weights("hf", checkpoint=tmp_path / str(number), out=tmp_path / f"back {number}")
        _carried(tmp_path / f"back {number}", settings, generation)
    assert load_weights(tmp_path / "0").sha256 == load_weights(tmp_path / "1").sha256


# ---- what an adapter was trained over ------------------------------------------------------------


def _run(folder, *, base_dtype, stored=np.float32):
    """A run with one checkpoint whose config says what the base was in memory."""
    config = tiny.ltu_as_config(tiny.llama_config())
    params = tiny.random_params(LTUAS.functional(config))
    base = {p: a.astype(stored) for p, a in params.items() if not is_adapter(p)}
    tiny.save(folder / "base", "llama", config.llama, base)
    step = folder / "run" / "checkpoints" / "3"
    entry = base_entry(load_weights(folder / "base"), relative_to=step)
    checkpoint.save_adapter(
        folder / "run",
        adapter={path: array for path, array in params.items() if is_adapter(path)},
        metadata={
            "kind": "ltu-as-checkpoint", "model": tiny.as_dict(config), "base": {"llama": entry},
            "stage": "stage3", "config": {"compute": {"base_dtype": base_dtype}},
        },
    )  # fmt: skip
    return folder / "run"


OUTS = {
    "ltu-as": ("x.safetensors", {}),
    "ltu-as, trained": ("y.bin", {"adapter_only": True}),
    "hf": ("hf", {}),
    "peft": ("adapter", {"base_name": "somebody/model"}),
}


def test_an_int8_base_is_told_by_every_export(tmp_path, capsys):
    run, told = _run(tmp_path, base_dtype="int8"), "trained over an int8 base"
    for name, (out, options) in OUTS.items():
        export_weights(name.partition(",")[0], checkpoint=run, out=tmp_path / out, **options)
        assert told in capsys.readouterr().out, name
        over = export_record.read(tmp_path / out).source["trained_over"]
        assert over["base_dtype"] == "int8" and over["stored_dtype"] == "float32"
        assert over["base_sha256"] == load_weights(tmp_path / "base").sha256
        info(tmp_path / out)
        assert told in capsys.readouterr().out, name
    # and who imports it hears it too, and what is exported from that
    imports = {
        "orbax": run, "ltu-as": tmp_path / "x.safetensors", "peft": tmp_path / "adapter",
    }  # fmt: skip
    for name, path in imports.items():
        given = {"llama": tmp_path / "base"} if name == "peft" else {}
        import_weights(name, weights=[path], out=tmp_path / f"from {name}", **given)
        assert told in capsys.readouterr().out, name
        export_weights("hf", checkpoint=tmp_path / f"from {name}", out=tmp_path / f"hf {name}")
        assert told in capsys.readouterr().out, name


@pytest.mark.parametrize(
    ("trained", "stored", "told"),
    [("bfloat16", np.float32, True), ("float32", np.float16, False), ("float32", np.float32, False),
     ("bfloat16", np.float16, True)],
)  # fmt: skip
def test_a_rounded_base_is_told_where_rounding_lost_something(
    tmp_path, capsys, trained, stored, told
):
    folder = _run(tmp_path, base_dtype=trained, stored=stored)
    export_weights("hf", checkpoint=folder, out=tmp_path / "hf")
    assert ("over the base rounded to" in capsys.readouterr().out) == told


@pytest.mark.parametrize("way", ["ltu-as, trained", "peft"])
def test_another_base_is_told(tmp_path, capsys, way):
    run = _run(tmp_path, base_dtype="float32")
    out, options = OUTS[way]
    export_weights(way.partition(",")[0], checkpoint=run, out=tmp_path / out, **options)
    same, params = load_weights(tmp_path / "base"), dict(load_weights(tmp_path / "base").params)
    changed = params | {"llama.layers.mlp.down_proj.kernel": np.float32(
        params["llama.layers.mlp.down_proj.kernel"] + 1e-3)}  # fmt: skip
    half = {path: array.astype(np.float16) for path, array in params.items()}
    export_weights("hf", checkpoint=tmp_path / "base", out=tmp_path / "base in hf")
    for name, values, told in (("other", changed, "another base than the adapter was over"),
                               ("half", half, "over a base in float32; this one is in float16"),
                               ("base", None, ""), ("base in hf", None, "")):  # fmt: skip
        if values is not None:
            save_weights(
                tmp_path / name, kind="llama", config=same.config, params=values, source={}
            )
        capsys.readouterr()
        import_weights(
            way.partition(",")[0], weights=[tmp_path / out], llama=tmp_path / name,
            out=tmp_path / "again",
        )  # fmt: skip
        printed = capsys.readouterr().out
        assert (told in printed) if told else ("over a base" not in printed)
        assert told or "another base" not in printed


# ---- what lies there says what it is -------------------------------------------------------------


def _printed_command(path, capsys):
    capsys.readouterr()
    info(path)
    lines = capsys.readouterr().out.splitlines()
    assert not [line for line in lines if line.startswith("problem")], lines
    assert any("exported by ltu_jax with --to" in line for line in lines), lines
    (command,) = [line for line in lines if line.startswith("import it with")]
    return command.partition("ltu_jax.convert ")[2].split()


@pytest.mark.parametrize("out", ["x.safetensors", "x.bin", "x", "y.bin", "adapter", "hf"])
def test_the_command_that_info_prints_works(tmp_path, capsys, out, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tiny.ltu_as_config(tiny.llama_config())
    params = tiny.random_params(LTUAS.functional(config))
    tiny.save(tmp_path / "whole", "ltu-as", config, params)
    base = {path: array for path, array in params.items() if not is_adapter(path)}
    tiny.save(tmp_path / "base", "llama", config.llama, base)
    to = {"adapter": "peft", "hf": "hf"}.get(out, "ltu-as")
    options = {"adapter": {"base_name": str(tmp_path / "base")}, "y.bin": {"adapter_only": True}}
    export_weights(to, checkpoint=tmp_path / "whole", out=tmp_path / out, **options.get(out, {}))
    words = _printed_command(tmp_path / out, capsys)
    assert ("BASE_DIR" in words) == (out == "y.bin")
    words = [str(tmp_path / "base") if word == "BASE_DIR" else word for word in words]
    run(parser().parse_args(words))
    again = load_weights(tmp_path / words[-1])
    if out != "hf":
        assert again.sha256 == load_weights(tmp_path / "whole").sha256


def test_the_record_of_a_folder_names_the_weights(tmp_path):
    config = tiny.llama_config()
    tiny.save(tmp_path / "ours", "llama", config, tiny.random_params(Llama.functional(config)))
    export_weights("hf", checkpoint=tmp_path / "ours", out=tmp_path / "hf")
    told = export_record.read(tmp_path / "hf")
    assert told.sha256 == load_weights(tmp_path / "ours").sha256 and told.kind == "llama"
