"""PEFT adapter directories: what we write loads in peft, what peft writes loads here."""

import functools
import json
import shutil
import warnings

import jax
import numpy as np
import peft
import pytest
import tiny_models as tiny
import torch
import transformers
from safetensors.numpy import load_file, save_file

from ltu_jax.convert import export_weights, import_weights
from ltu_jax.core.errors import UserError
from ltu_jax.models.llama import LlamaConfig
from ltu_jax.models.ltu_as import LTUAS, LTUASConfig
from ltu_jax.models.text_batch import TextBatch
from ltu_jax.weights.files import shards
from ltu_jax.weights.formats import hf_llama, official_ltu_as, peft_adapter, peft_config
from ltu_jax.weights.formats.official_ltu_as import merge_lora
from ltu_jax.weights.lineage import is_adapter
from ltu_jax.weights.name_tables import export
from ltu_jax.weights.store import load_weights
from ltu_jax.weights.tensors import WeightsError, as_tensors

SIZES = dict(
    vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
)  # fmt: skip
AUDIO = "ltu_as_audio.safetensors"
TARGETS = {
    "official": ("q_proj", "v_proj"),
    "all": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "own order": ("up_proj", "q_proj"),
}


pytestmark = [
    # peft asks transformers by a name that version 6 will drop
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A random LLaMA as Hugging Face keeps it, and its config here."""
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES))
    for value in model.parameters():
        torch.nn.init.normal_(value, std=0.2)
    folder = tmp_path_factory.mktemp("base") / "vicuna"
    model.save_pretrained(folder)
    return folder


def _model(base, targets=TARGETS["official"]):
    """LTU-AS over the base: config and all parameters, those outside the base random."""
    config, held = tiny.opened(hf_llama.from_hf(base), "llama")
    whole = tiny.ltu_as_config(LlamaConfig.from_dict(config), targets=targets)
    params = tiny.random_params(LTUAS.functional(whole))
    return whole, params | tiny.numbers(held)


def _write(base, folder, targets=TARGETS["official"]):
    config, params = _model(base, targets)
    folder.mkdir()
    adapter = peft_adapter.to_peft(tiny.as_dict(config), as_tensors(params), base_name=str(base))
    assert adapter.write(folder) == 2 * 3 * len(targets) + 32
    return config, params


@pytest.mark.parametrize("targets", TARGETS)
def test_peft_loads_what_we_write(base, tmp_path, targets):
    config, params = _write(base, tmp_path / "adapter", TARGETS[targets])
    plain = transformers.AutoModelForCausalLM.from_pretrained(base)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # peft warns of missing keys
        model = peft.PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()
    lora = {name for name in model.state_dict() if ".lora_" in name}
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert lora == {official_ltu_as.canonical(name) for name in saved}
    result = peft.set_peft_model_state_dict(
        model, {name: torch.from_numpy(array) for name, array in saved.items()}
    )
    assert not result.unexpected_keys
    assert not [name for name in result.missing_keys if "lora" in name]

    rng = np.random.default_rng(3)
    ids, features = rng.integers(0, 96, (2, 9)), rng.standard_normal((2, 2, 25, 16))
    features = features.astype(np.float32)
    fns = LTUAS.functional(config)
    positions = np.broadcast_to(np.arange(34), (2, 34))
    text = TextBatch(input_ids=ids, segment_ids=np.ones_like(ids), positions=positions)
    ours = jax.jit(fns.pure(LTUAS.__call__))(params, text, features)
    audio = jax.jit(fns.pure(LTUAS.embed_audio))(params, features)
    embeds = np.concatenate([audio, fns.bind(params).embed_text(ids)], 1)
    with torch.no_grad():
        truth = model(inputs_embeds=torch.from_numpy(embeds)).logits[:, 25:].numpy()
        with model.disable_adapter():
            without = model(inputs_embeds=torch.from_numpy(embeds)).logits[:, 25:].numpy()
    np.testing.assert_allclose(ours, truth, atol=1e-4)
    assert np.abs(without - truth).max() > 0.1  # the adapter is not negligible here


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("over", ["hugging face", "ours", "as it is named"])
def test_out_and_in_is_bit_identical(base, tmp_path, targets, over):
    config, params = _write(base, tmp_path / "adapter", TARGETS[targets])
    folder = {"hugging face": base, "as it is named": None}.get(over, tmp_path / "ours")
    if over == "ours":
        plain = {path: array for path, array in params.items() if not is_adapter(path)}
        tiny.save(folder, "llama", config.llama, plain)
    found = peft_adapter.from_peft(tmp_path / "adapter", base=folder)
    again, read = tiny.opened(found, "ltu-as")
    assert again == tiny.as_dict(config) | {"lora": again["lora"]}
    assert tuple(again["lora"]["targets"]) == config.lora.targets
    assert tiny.as_dict(type(config).from_dict(again)) == tiny.as_dict(config)
    tiny.identical(tiny.numbers(read), params)

    (tmp_path / "second").mkdir()
    peft_adapter.to_peft(again, read, base_name=str(base)).write(tmp_path / "second")
    for file in sorted(path.name for path in (tmp_path / "adapter").iterdir()):
        assert (tmp_path / "second" / file).read_bytes() == (
            tmp_path / "adapter" / file
        ).read_bytes(), file


def _plain_peft(base, folder, *, bin=False, **changes):
    """An adapter that peft itself has made and saved, LoRA only."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    settings = dict(
        r=4, lora_alpha=12, lora_dropout=0.1, target_modules=["q_proj", "v_proj"],
        task_type="CAUSAL_LM",
    )  # fmt: skip
    model = peft.get_peft_model(model, peft.LoraConfig(**(settings | changes)))
    torch.manual_seed(1)
    for name, value in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(value, std=0.2)
    model.save_pretrained(folder)
    if bin:
        saved = load_file(folder / "adapter_model.safetensors")
        (folder / "adapter_model.safetensors").unlink()
        torch.save({n: torch.from_numpy(a) for n, a in saved.items()}, folder / "adapter_model.bin")
    return model.eval()


def _audio(base):
    config, params = _model(base)
    official = official_ltu_as.to_official(
        tiny.as_dict(config), as_tensors(params), adapter_only=True
    )
    return {n: t.read() for n, t in official.items() if "audio_" in n}, params


@functools.cache
def _forward(config):
    return jax.jit(LTUAS.functional(config).pure(LTUAS.__call__))


def _text_logits(config, params, ids):
    """Our logits without audio."""
    positions = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    text = TextBatch(input_ids=ids, segment_ids=np.ones_like(ids), positions=positions)
    return _forward(config)(params, text, None)


@pytest.mark.parametrize("bin", [False, True])
@pytest.mark.parametrize("place", ["beside", "with the LoRA"])
def test_an_adapter_of_plain_peft_with_the_audio_part(base, tmp_path, bin, place):
    folder = tmp_path / "adapter"
    model = _plain_peft(base, folder, bin=bin and place == "beside")
    audio, params = _audio(base)
    if place == "beside":
        save_file(audio, folder / AUDIO)
    else:
        both = load_file(folder / "adapter_model.safetensors") | audio
        (folder / "adapter_model.safetensors").unlink()
        if bin:
            state = {name: torch.from_numpy(array.copy()) for name, array in both.items()}
            torch.save(state, folder / "adapter_model.bin")
        else:
            save_file(both, folder / "adapter_model.safetensors")
    found = peft_adapter.from_peft(folder, base=base)
    assert "width 16 is of no Whisper: any number of audio layers is taken" in found.notes
    config, read = tiny.opened(found, "ltu-as")
    assert config["lora"] == {
        "rank": 4, "alpha": 12.0, "dropout": 0.1, "targets": ("q_proj", "v_proj"),
    }  # fmt: skip
    assert config["tltr"] == {"d_model": 16, "time_heads": 1, "layer_heads": 8}
    values = tiny.numbers(read)
    for path, array in params.items():
        if ".lora_" not in path:
            assert values[path].tobytes() == array.tobytes(), path
    # the language model with the adapter, without audio
    ids = np.random.default_rng(4).integers(0, 96, (2, 9))
    ours = _text_logits(LTUASConfig.from_dict(config), values, ids)
    with torch.no_grad():
        truth = model(torch.from_numpy(ids)).logits.numpy()
    np.testing.assert_allclose(ours, truth, atol=1e-4)


@pytest.mark.parametrize("bin", [False, True])
def test_an_adapter_without_the_audio_weights_is_refused(base, tmp_path, bin):
    _plain_peft(base, tmp_path / "adapter", bin=bin)
    with pytest.raises(WeightsError) as caught:
        peft_adapter.from_peft(tmp_path / "adapter", base=base)
    message = str(caught.value)
    assert f"{AUDIO} is missing" in message
    assert "saved without the audio weights (TLTR and projection)" in message
    assert "checkpoint-N/pytorch_model.bin" in message


# Real configs that peft accepts, and what is said about them.
CHANGES = {
    "use_rslora": (dict(use_rslora=True), "use_rslora is True: a scale of alpha / sqrt"),
    "use_dora": (dict(use_dora=True), "use_dora is True: weights rescaled"),
    "bias": (dict(bias="lora_only"), "bias is 'lora_only': trained biases"),
    "modules_to_save": (dict(modules_to_save=["lm_head"]), "modules_to_save is .*'lm_head'"),
    "rank_pattern": (dict(rank_pattern={"q_proj": 2}), "rank_pattern is .*another rank"),
    "alpha_pattern": (dict(alpha_pattern={"q_proj": 2}), "alpha_pattern is .*another alpha"),
    "layers_to_transform": (dict(layers_to_transform=[0, 1]), "layers_to_transform is .*some lay"),
    "lora_bias": (dict(lora_bias=True), "lora_bias is True"),
    "trainable_token_indices": (dict(trainable_token_indices=[3]), "trainable_token_indices is"),
    "target_modules": (
        dict(target_modules=["q_proj", "lm_head"]),
        "target_modules has lm_head; Lo",
    ),
    "init": (dict(init_lora_weights="pissa"), "init_lora_weights 'pissa' changes the base"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # peft's own, about these settings
@pytest.mark.parametrize("case", CHANGES)
def test_settings_that_would_change_the_numbers_are_refused_by_name(base, tmp_path, case):
    changes, message = CHANGES[case]
    _plain_peft(base, tmp_path / "adapter", **changes)
    save_file(_audio(base)[0], tmp_path / "adapter" / AUDIO)
    with pytest.raises(WeightsError, match=message):
        peft_adapter.from_peft(tmp_path / "adapter", base=base)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3' is not implemented; 'LORA' is"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is True: a base with transposed kernels"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication is"),
        ({"invented_in_2031": 1}, "invented_in_2031 is 1: a setting of PEFT that is unknown here"),
        ({"r": None}, "r is None; expected a number"),
        ({"lora_alpha": "16"}, "lora_alpha is '16'; expected a number"),
        ({"lora_dropout": None}, "lora_dropout is None; expected a number"),
        ({"r": 8}, "adapter_config.json has r 8, lora_A 4 rows"),
        ({"lora_alpha": 99}, "LoRA alpha is 99.0 in adapter_config.json and 12.0 in ltu_as.json"),
        ({"target_modules": ["q_proj"]}, "target_modules q_proj; the weights have LoRA on q_proj"),
        ({"target_modules": None}, "target_modules is None; expected a list"),
        ({"base_model_name_or_path": "lmsys/vicuna"}, "'lmsys/vicuna', which is no directory here"),
    ],
)
def test_a_config_that_does_not_fit_the_weights(base, tmp_path, changes, message):
    _write(base, tmp_path / "adapter")
    file = tmp_path / "adapter" / peft_config.FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(WeightsError, match=message):
        peft_adapter.from_peft(tmp_path / "adapter")


@pytest.mark.parametrize("pattern", [r".*\.(q|v)_proj", ["self_attn.q_proj", "self_attn.v_proj"]])
def test_other_ways_to_name_the_targets(base, tmp_path, pattern):
    _plain_peft(base, tmp_path / "adapter", target_modules=pattern)
    save_file(_audio(base)[0], tmp_path / "adapter" / AUDIO)
    config = peft_adapter.from_peft(tmp_path / "adapter", base=base).config
    assert config["lora"]["targets"] == ["q_proj", "v_proj"]


@pytest.mark.parametrize("excluded", [None, ["up_proj", "o_proj"]])
def test_all_linear(base, tmp_path, excluded):
    _plain_peft(base, tmp_path / "adapter", target_modules="all-linear", exclude_modules=excluded)
    save_file(_audio(base)[0], tmp_path / "adapter" / AUDIO)
    found = peft_adapter.from_peft(tmp_path / "adapter", base=base)
    wanted = [name for name in peft_config.TARGETS if name not in (excluded or ())]
    assert found.config["lora"]["targets"] == wanted
    tiny.opened(found, "ltu-as")


def test_a_damaged_settings_file_is_named(base, tmp_path):
    _write(base, tmp_path / "adapter")
    file = tmp_path / "adapter" / "ltu_as.json"
    good = json.loads(file.read_text())
    for value, message in (
        ({"ltu_jax_peft": 2}, "ltu_as.json is not of format 1"),
        (good | {"config": None}, "ltu_as.json has no config"),
        (good | {"config": good["config"] | {"depth": 3}}, "LTUASConfig has unknown keys depth"),
    ):
        file.write_text(json.dumps(value))
        with pytest.raises(UserError, match=message):
            peft_adapter.from_peft(tmp_path / "adapter")


def test_missing_and_double_files(base, tmp_path):
    folder = tmp_path / "adapter"
    _write(base, folder)
    (folder / "adapter_model.safetensors").rename(tmp_path / "kept")
    with pytest.raises(WeightsError, match="no adapter_model.safetensors and no adapter_model.bin"):
        peft_adapter.from_peft(folder)
    save_file(load_file(tmp_path / "kept") | load_file(folder / AUDIO),
              folder / "adapter_model.safetensors")  # fmt: skip
    with pytest.raises(WeightsError, match=f"is in adapter_model.safetensors and in {AUDIO}"):
        peft_adapter.from_peft(folder)
    shutil.copy(folder / AUDIO, folder / "adapter_model.safetensors")
    with pytest.raises(WeightsError, match="has no lora_A among its 32 names"):
        peft_adapter.from_peft(folder)
    (folder / peft_config.FILE).unlink()
    with pytest.raises(WeightsError, match="no adapter_config.json"):
        peft_adapter.from_peft(folder)
    with pytest.raises(WeightsError, match="no adapter_config.json"):
        peft_adapter.from_peft(base)


def test_an_audio_part_of_another_size_or_incomplete(base, tmp_path):
    folder = tmp_path / "adapter"
    _write(base, folder)
    audio = load_file(folder / AUDIO)
    name = next(name for name in audio if "audio_proj.1.weight" in name)
    save_file(audio | {name: np.zeros((5120, 16), np.float32)}, folder / AUDIO)
    with pytest.raises(WeightsError, match="this is a 13B checkpoint over a width-32 base"):
        peft_adapter.from_peft(folder)
    part = {n: a for n, a in audio.items() if "layer_tr.mlp.0" not in n}
    save_file(part, folder / AUDIO)
    with pytest.raises(WeightsError, match="2 missing: .*layer_tr.mlp.0.bias"):
        tiny.opened(peft_adapter.from_peft(folder), "ltu-as")


def test_another_base_is_refused(base, tmp_path):
    _write(base, tmp_path / "adapter")
    shutil.copytree(base, tmp_path / "other")
    settings = json.loads((base / "config.json").read_text())
    settings["rope_parameters"]["rope_theta"] = 5e5
    (tmp_path / "other" / "config.json").write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match="a base with rope_theta 10000.0; .*other has 500000.0"):
        peft_adapter.from_peft(tmp_path / "adapter", base=tmp_path / "other")


def test_stage_1_has_no_adapter_to_write(base):
    config, params = _model(base, targets=())
    with pytest.raises(WeightsError, match="no LoRA .stage 1 trains none.*--adapter-only"):
        peft_adapter.to_peft(tiny.as_dict(config), as_tensors(params), base_name="x")


@pytest.mark.parametrize("named", ["by directory", "on the hub"])
def test_through_the_command_line(base, tmp_path, named):
    config, params = _model(base)
    ours = tiny.save(tmp_path / "ours", "ltu-as", config, params)
    name = str(base) if named == "by directory" else "lmsys/vicuna-7b-v1.1"
    export_weights("peft", checkpoint=ours, out=tmp_path / "adapter", base_name=name)
    given = {} if named == "by directory" else {"llama": base}
    import_weights("peft", weights=[tmp_path / "adapter"], out=tmp_path / "again", **given)
    again = load_weights(tmp_path / "again", kind="ltu-as")
    assert again.sha256 == load_weights(ours).sha256
    tiny.identical(dict(again.params), params)


def test_merged_loads_without_peft_and_equals_peft_merged(base, tmp_path):
    config, params = _write(base, tmp_path / "adapter", TARGETS["all"])
    plain = export(hf_llama.HF_RULES, merge_lora(tiny.as_dict(config), as_tensors(params)))
    (tmp_path / "hf").mkdir()
    shards.write_shards(tmp_path / "hf", plain, stem="model", metadata={"format": "pt"})
    settings = hf_llama.hf_config(tiny.as_dict(config.llama), dtype="float32", tokens={})
    (tmp_path / "hf" / "config.json").write_text(json.dumps(settings))
    ours = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    plain = transformers.AutoModelForCausalLM.from_pretrained(base)
    model = peft.PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()
    ids = torch.from_numpy(np.random.default_rng(5).integers(0, 96, (2, 12)))
    with torch.no_grad():
        np.testing.assert_allclose(ours(ids).logits.numpy(), model(ids).logits.numpy(), atol=1e-4)
    truth = model.merge_and_unload().state_dict()
    for name, value in ours.state_dict().items():
        np.testing.assert_allclose(value.numpy(), truth[name].numpy(), atol=1e-6)
