"""Parity certificates pass on sound weights of every kind, and name the module that is off."""

import dataclasses
import json
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
from golden_cases import derive
from tiny_models import hollow, llama_config, ltu_as_config, random_params

from ltu_jax.models.llama import Llama, LlamaConfig
from ltu_jax.models.ltu_as import LTUAS
from ltu_jax.models.sizes import LLAMA_SIZES
from ltu_jax.models.tltr import Tagger, TaggerConfig, TLTRConfig
from ltu_jax.models.whisper import Whisper, WhisperConfig
from ltu_jax.weights import name_tables as tables
from ltu_jax.weights.files import torch_file
from ltu_jax.weights.files.safetensors_file import read_safetensors
from ltu_jax.weights.fingerprint import KEY
from ltu_jax.weights.formats import hf_llama, hf_whisper, official_ltu_as, whisper_at
from ltu_jax.weights.lineage import is_adapter
from ltu_jax.weights.parity import certificate, golden, modules, reference
from ltu_jax.weights.store import LazyParams, Weights, load_weights, save_weights
from ltu_jax.weights.tensors import WeightsError, array_tensor

WHISPER = WhisperConfig(
    n_mels=80, n_audio_ctx=60, n_audio_state=32, n_audio_head=4, n_audio_layer=2, n_vocab=70,
    n_text_ctx=12, n_text_state=32, n_text_head=2, n_text_layer=3,
)  # fmt: skip


def saved(path, kind, config, fns, **changes):
    """Random weights of `kind` as a weights directory, opened."""
    save_weights(
        path,
        kind=kind,
        config=dataclasses.asdict(config),
        params=random_params(fns) | changes,
        source={"format": "test"},
    )
    return load_weights(path)


def rows(found):
    return {row["module"]: row for row in found["modules"]}


def failed(found):
    return [row["module"] for row in found["modules"] if not row["passed"]]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": True, "attention_bias": True},
        {"rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                          "original_max_position_embeddings": 64}},
    ],
    ids=["grouped", "qwen2", "llama3"],
)  # fmt: skip
def test_llama(tmp_path, changes):
    config = LlamaConfig.from_dict(dataclasses.asdict(llama_config()) | changes)
    saved(tmp_path / "w", "llama", config, Llama.functional(config))
    found = certificate.certify(load_weights(tmp_path / "w"))
    assert found["verdict"] == certificate.PASSED
    wanted = ["llama.layers.0", "llama.layers.1", "llama.layers.2", "llama.norm", "logits"]
    assert list(rows(found)) == wanted
    assert max(row["max_rel"] for row in found["modules"]) < 2e-5
    assert json.loads(json.dumps(found)) == found
    assert load_weights(tmp_path / "w").sha256 == found["weights"]["sha256"]


def test_the_module_that_is_off_is_named(tmp_path):
    config = llama_config()
    weights = saved(tmp_path / "w", "llama", config, Llama.functional(config))
    exported = tables.export(hf_llama.HF_RULES, weights.params.tensors)
    assert certificate.certify(weights, exported=exported)["verdict"] == certificate.PASSED
    name = "model.layers.1.self_attn.q_proj.weight"
    wrong = exported[name].read().copy()
    wrong[0] += 0.01
    found = certificate.certify(weights, exported=exported | {name: array_tensor(wrong)})
    assert found["verdict"] == certificate.FAILED
    assert failed(found) == ["llama.layers.1", "llama.layers.2", "llama.norm", "logits"]
    shown = certificate.table(found).splitlines()
    assert shown[1].endswith("ok") and shown[2].endswith("FAILED")
    assert shown[-1].startswith("parity failed in float32 on cpu")


def test_numbers_that_are_not_finite_fail(tmp_path):
    config = llama_config()
    broken = {"llama.norm.scale": np.full(32, np.nan, np.float32)}
    saved(tmp_path / "w", "llama", config, Llama.functional(config), **broken)
    found = certificate.certify(load_weights(tmp_path / "w"))
    assert failed(found) == ["llama.norm", "logits"]

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    text = json.dumps(found)
    assert rows(json.loads(text, parse_constant=refuse))["logits"]["max_abs"] is None
    assert "not finite" in certificate.table(found)


def test_whisper(tmp_path):
    weights = saved(tmp_path / "w", "whisper", WHISPER, Whisper(WHISPER))
    found = certificate.certify(load_weights(tmp_path / "w"))
    assert found["verdict"] == certificate.PASSED
    wanted = ["encoder.blocks.0", "encoder.blocks.1", "encoder.ln_post", "logits"]
    assert list(rows(found)) == wanted
    assert max(row["max_rel"] for row in found["modules"]) < 2e-5
    assert found[KEY]["shape"] == [2, 3, 32] and found[KEY]["dtype"] == "float32"
    exported = tables.export(hf_whisper.HF_RULES, weights.params.tensors)
    name = "decoder.layers.2.encoder_attn.k_proj.weight"
    wrong = exported | {name: array_tensor(exported[name].read() * 1.01)}
    assert failed(certificate.certify(weights, exported=wrong)) == ["logits"]


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("o_proj", "gate_proj"), ()])
def test_ltu_as(tmp_path, targets):
    config = ltu_as_config(llama_config(), targets=targets)
    weights = saved(tmp_path / "w", "ltu-as", config, LTUAS.functional(config))
    found = certificate.certify(weights)
    assert found["verdict"] == certificate.PASSED and found[KEY] is None
    by_name = rows(found)
    for name in ("tltr.time_tr", "tltr.layer_tr", "tltr", "audio_proj", "llama.layers.2", "logits"):
        assert by_name[name]["max_rel"] < 2e-5, name
    assert ("logits, LoRA merged" in by_name) == bool(targets)
    assert {row["against"] for row in found["modules"]} == {
        "numpy float64", "transformers float32", "golden case",
    }  # fmt: skip
    if not targets:
        return
    plain = {p: t for p, t in weights.params.tensors.items() if not is_adapter(p)}
    unmerged = tables.export(hf_llama.HF_RULES, plain)
    wrong = certificate.certify(weights, exported=unmerged)
    assert failed(wrong) == ["logits, LoRA merged"]


@pytest.mark.parametrize("d_input", [None, 24])
def test_tltr_needs_no_torch(tmp_path, monkeypatch, d_input):
    tltr = TLTRConfig(d_model=16, time_heads=1, layer_heads=4)
    config = TaggerConfig(tltr=tltr, labels=5, d_input=d_input, audio_layers=3)
    fns = Tagger.functional(TaggerConfig(tltr=tltr, labels=5, d_input=d_input, audio_layers=None))
    weights = saved(tmp_path / "w", "tltr", config, fns)
    monkeypatch.setattr(torch_file, "torch_module", None)
    found = certificate.certify(weights)
    assert found["verdict"] == certificate.PASSED
    assert list(rows(found)) == ["logits", "tltr_full: logits", "tltr_low: logits"]
    # numpy takes the heads from the config: other heads are other numbers
    assert rows(found)["logits"]["max_rel"] < 2e-6


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_states_its_cost(tmp_path, dtype):
    config = ltu_as_config(llama_config())
    found = certificate.certify(
        saved(tmp_path / "w", "ltu-as", config, LTUAS.functional(config)), dtype=dtype
    )
    assert found["verdict"] == certificate.PASSED and found["dtype"] == dtype
    assert found["matmul_precision"] == "default"
    logits = rows(found)["logits"]
    assert 1e-4 < logits["mean_rel"] < logits["tolerance"] == modules.TOLERANCES[dtype]


def test_the_authors_numbers():
    """The case files are cut from tests/golden, and both our model and numpy reproduce them."""
    cases = derive()
    stored = json.loads((golden.FOLDER / "cases.json").read_text())
    assert stored == {name: case for name, (case, _) in cases.items()}
    for name, (case, tensors) in cases.items():
        kept = read_safetensors(golden.FOLDER / f"{name}.safetensors")
        assert kept.keys() == tensors.keys()
        for key, array in tensors.items():
            np.testing.assert_array_equal(kept[key].read(), array)
        assert name in golden.names(case["kind"])
        for pair in golden.compute(name, dtype="float32"):
            scale = np.abs(pair.wanted).max()
            np.testing.assert_allclose(pair.ours, pair.wanted, rtol=0, atol=1e-5 * scale)
    _, tensors = cases["ltu_as"]
    found = _numpy_tltr(official_ltu_as.RULES, tensors, heads=(1, 8)).audio_tokens(
        tensors["in/audio_input"]
    )
    for key in ("tltr", "audio_proj"):
        np.testing.assert_allclose(found[key], tensors[f"out/{key}"], rtol=0, atol=5e-6)
    for name in ("tltr_full", "tltr_low"):
        tensors = cases[name][1]
        tltr = _numpy_tltr(whisper_at.RULES, tensors, heads=(1, 8))
        found = tltr.label_logits(tensors["in/features"])
        np.testing.assert_allclose(found, tensors["out/logits"], rtol=0, atol=5e-6)


def _numpy_tltr(table, tensors, *, heads):
    """The float64 reference over official names, renamed one by one."""
    weights = {n.removeprefix("weights/"): a for n, a in tensors.items() if n.startswith("weights")}
    found = {}
    for rule in table:
        if rule.source in weights:
            (found[rule.targets[0]],) = rule.transform.unpack(weights[rule.source])
    held = {path: array_tensor(array) for path, array in found.items()}
    return reference.ReferenceTLTR(held, time_heads=heads[0], layer_heads=heads[1])


def test_what_a_certificate_says(tmp_path):
    config = llama_config()
    weights = saved(tmp_path / "w", "llama", config, Llama.functional(config))
    found = certificate.certify(weights)
    assert found["format"] == 1 and found["reference_ran_on"] == "our numbers"
    assert (
        found["weights"]["source"] == {"format": "test"} and found["matmul_precision"] == "highest"
    )
    assert found["device"] == {"platform": "cpu", "kind": jax.devices()[0].device_kind}
    assert {"jax", "flax", "torch", "transformers", "numpy"} <= found["versions"].keys()
    assert found["versions"]["jax"] == jax.__version__
    with pytest.raises(WeightsError, match="'int8' is unknown; known are float32"):
        certificate.certify(weights, dtype="int8")


def test_without_torch_it_says_what_to_install(tmp_path, monkeypatch):
    config = llama_config()
    saved(tmp_path / "w", "llama", config, Llama.functional(config))
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(WeightsError, match="runs the PyTorch reference.*pip install torch"):
        certificate.certify(load_weights(tmp_path / "w"))


def test_memory_is_asked_for_before_the_work(tmp_path, monkeypatch):
    config = LLAMA_SIZES["llama-7b"]
    shapes = {path: leaf.shape for path, leaf in Llama.functional(config).shapes.items()}

    weights = Weights(
        kind="llama", config=dataclasses.asdict(config), params=LazyParams(hollow(shapes)),
        path=tmp_path / "7b", sha256="0" * 64, tokenizer_dir=None, source={},
    )  # fmt: skip
    # 6.74 billion parameters, and the largest stack (32 x 4096 x 11008) as it is read
    assert 32e9 < certificate.memory_needed(weights, dtype="float32") < 36e9
    assert 19e9 < certificate.memory_needed(weights, dtype="bfloat16") < 22e9
    monkeypatch.setattr(certificate, "available", lambda: 8_000_000_000)
    with pytest.raises(WeightsError, match=r"float32 needs about 3\d\.\d GB.*8\.0 GB are free"):
        certificate.certify(weights)
    monkeypatch.undo()
    assert 0 < certificate.available() < 1 << 45


@pytest.mark.parametrize("name", ["whisper_tiny_dir", "smollm2_dir"])
def test_real_weights_match_transformers(name, request, tmp_path):
    weights = load_weights(request.getfixturevalue(name))
    found = certificate.certify(weights)
    assert found["verdict"] == certificate.PASSED
    assert max(row["max_rel"] for row in found["modules"]) < 1e-4
    assert rows(found)["logits"]["max_abs"] < 2e-4


def test_a_certificate_names_the_commit_of_this_code():
    command = ["git", "rev-parse", "--short=12", "HEAD"]
    here = Path(__file__).parent
    head = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    found = certificate.versions().get("commit")
    if head.returncode:  # an unpacked archive has no commit to name
        assert found is None
    else:
        assert found.removesuffix("-dirty") == head.stdout.strip()
