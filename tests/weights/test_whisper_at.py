"""Whisper-AT taggers: numbers of the authors' own module, published sizes, and wrong files."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import nn

from ltu_jax.core.config import ConfigError
from ltu_jax.models.functional import Functional
from ltu_jax.models.tltr import Tagger, TaggerConfig, TLTRConfig
from ltu_jax.weights.formats.whisper_at import RULES, from_whisper_at, read_labels
from ltu_jax.weights.name_tables import export, foreign_shapes
from ltu_jax.weights.store import load_weights, save_weights
from ltu_jax.weights.tensors import WeightsError

VARIANTS = ("full", "low")
TABLE = 'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/05zppz,"Male speech, man speaking"\n'


class Attention(nn.Module):
    """Multi-head attention without a key bias."""

    def __init__(self, size: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.value, self.out = (nn.Linear(size, size) for _ in range(3))
        self.key = nn.Linear(size, size, bias=False)

    def forward(self, x):
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Whisper's pre-norm block."""

    def __init__(self, size: int, heads: int):
        super().__init__()
        self.attn, self.attn_ln = Attention(size, heads), nn.LayerNorm(size)
        self.mlp = nn.Sequential(nn.Linear(size, 4 * size), nn.GELU(), nn.Linear(4 * size, size))
        self.mlp_ln = nn.LayerNorm(size)

    def forward(self, x):
        x = x + self.attn(self.attn_ln(x))
        return x + self.mlp(self.mlp_ln(x))


class Reference(nn.Module):
    """TL-TR from the paper's description: over time, mean, over layers, mean, labels."""

    def __init__(self, *, width: int, size: int | None = None, labels: int = 527):
        super().__init__()
        if size is not None:
            self.down_layer = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, size))
        size = size or width
        self.time_tr, self.layer_tr = Block(size, 1), Block(size, 8)
        self.mlp_layer = nn.Sequential(nn.LayerNorm(size), nn.Linear(size, labels))

    def forward(self, x):
        if hasattr(self, "down_layer"):
            x = self.down_layer(x)
        pooled = self.time_tr(x.flatten(0, 1)).mean(1).unflatten(0, x.shape[:2])
        return self.mlp_layer(self.layer_tr(pooled).mean(1))


def random_reference(seed: int = 0, **sizes) -> Reference:
    torch.manual_seed(seed)
    model = Reference(**sizes).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.normal_(std=0.2)
            if value.ndim == 1 and name.endswith("weight"):
                value.add_(1.0)
    return model


def tagger(config: dict) -> Functional[Tagger]:
    typed = TaggerConfig.from_dict(config)
    return Tagger.functional(typed)


def shapes_of(config: dict) -> dict[str, tuple[int, ...]]:
    return {path: leaf.shape for path, leaf in tagger(config).shapes.items()}


def params_of(found, *, what: str = "the file") -> dict[str, np.ndarray]:
    tensors = found.params(shapes_of(found.config), subject=what)
    return {path: tensor.read() for path, tensor in tensors.items()}


def logits(config: dict, params, features) -> np.ndarray:
    return np.asarray(
        jax.jit(tagger(config).pure(Tagger.__call__))(dict(params), np.asarray(features))
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_authors_module_computes_the_same(variant, golden, tmp_path):
    folder = golden / f"whisper_at_{variant}"
    found = from_whisper_at(folder / "weights.safetensors")
    said = json.loads((folder / "config.json").read_text())
    assert found.config["labels"] == said["label_dim"]
    assert found.config["d_input"] == (said["rep_dim"] if variant == "low" else None)
    assert found.source["variant"] == variant
    tensors = found.params(shapes_of(found.config), subject="golden")
    save_weights(
        tmp_path / "tltr",
        kind="tltr",
        config=found.config,
        params=tensors,
        source=found.source,
        files=found.files,
    )
    weights = load_weights(tmp_path / "tltr", kind="tltr")
    data = np.load(folder / "forward.npz")
    got = logits(weights.config, weights.params, data["features"])
    np.testing.assert_allclose(got, data["logits"], rtol=1e-5, atol=1e-5)
    # the golden numbers tell the heads apart, which no shape does
    for heads in ({"time_heads": 2}, {"layer_heads": 4}):
        other = weights.config | {"tltr": weights.config["tltr"] | heads}
        assert np.abs(logits(other, weights.params, data["features"]) - data["logits"]).max() > 0.01


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_table_inverts_bit_for_bit(variant, golden):
    file = golden / f"whisper_at_{variant}" / "weights.safetensors"
    found = from_whisper_at(file)
    tensors = found.params(shapes_of(found.config), subject="golden")
    back = {f"at_model.{name}": tensor.read() for name, tensor in export(RULES, tensors).items()}
    state = load_file(file)
    assert back.keys() == state.keys()
    for name, array in state.items():
        assert back[name].tobytes() == array.tobytes(), name


# Parameters in millions as the authors' training logs print them.
@pytest.mark.parametrize(
    "width, size, millions, exact",
    [
        (1280, None, "40.030", 40_029_967),
        (1024, None, "25.733", None),
        (768, None, "14.581", None),
        (512, None, "6.575", None),
        (384, None, "3.752", 3_751_823),
        (1280, 512, "7.234", 7_233_551),
        (1024, 512, "7.102", None),
        (768, 512, "6.970", None),
    ],
)
def test_published_sizes(width, size, millions, exact):
    config = TaggerConfig(
        tltr=TLTRConfig(d_model=size or width, time_heads=1, layer_heads=8),
        labels=527,
        d_input=width if size else None,
        audio_layers=None,
    )
    shapes = shapes_of(dataclasses.asdict(config))
    count = sum(int(np.prod(shape)) for shape in shapes.values())
    assert f"{count / 1e6:.3f}" == millions and exact in (None, count)
    with torch.device("meta"):
        state = Reference(width=width, size=size).state_dict()
    assert foreign_shapes(RULES, shapes) == {n: tuple(v.shape) for n, v in state.items()}


@pytest.mark.parametrize("sizes", [dict(width=24), dict(width=40, size=16)])
def test_a_trainers_pth_of_another_size(sizes, tmp_path):
    model = random_reference(**sizes, labels=5)
    file = tmp_path / "audio_model_wa.pth"
    torch.save({f"module.{name}": value for name, value in model.state_dict().items()}, file)
    found = from_whisper_at(file)
    assert found.source["whisper"] is None
    features = torch.randn(3, 6, 25, sizes["width"])
    with torch.no_grad():
        truth = model(features).numpy()
    np.testing.assert_allclose(
        logits(found.config, params_of(found), features), truth, rtol=1e-5, atol=1e-5
    )


def write(path, state) -> str:
    save_file({name: np.ascontiguousarray(value) for name, value in state.items()}, path)
    return path


def named(model: Reference, prefix: str = "at_model.") -> dict[str, np.ndarray]:
    return {f"{prefix}{name}": value.numpy() for name, value in model.state_dict().items()}


def whisper_part(width: int) -> dict[str, np.ndarray]:
    blocks = {f"encoder.blocks.{i}.attn.out.bias": np.zeros(width, np.float32) for i in range(3)}
    conv = {"encoder.conv1.weight": np.zeros((width, 80, 3), np.float32)}
    return conv | blocks | {"decoder.token_embedding.weight": np.zeros((7, width), np.float32)}


def test_the_published_file_name_and_width_name_the_encoder(tmp_path):
    model = random_reference(width=384, labels=2)
    torch.save({f"at_model.{n}": v for n, v in model.state_dict().items()}, tmp_path / "t_ori.pth")
    found = from_whisper_at((tmp_path / "t_ori.pth").rename(tmp_path / "tiny.en_ori.pth"))
    assert found.source["whisper"] == "tiny.en" and found.config["audio_layers"] == 4
    assert from_whisper_at(tmp_path / "tiny.en_ori.pth", audio_layers=6).config["audio_layers"] == 6


def test_a_complete_file_gives_its_tagger_and_says_so(tmp_path):
    state = named(random_reference(width=24, labels=3))
    found = from_whisper_at(write(tmp_path / "a.safetensors", state | whisper_part(24)))
    assert found.config["audio_layers"] == 3
    assert any("its 5 tensors are left out" in note for note in found.notes)
    alone = from_whisper_at(write(tmp_path / "b.safetensors", state))
    assert alone.config["audio_layers"] is None
    both = params_of(found), params_of(alone)
    assert both[0].keys() == both[1].keys()
    assert all((both[0][path] == both[1][path]).all() for path in both[0])


def full(**changes) -> dict[str, np.ndarray]:
    return named(random_reference(width=24, labels=3)) | changes


def without(name: str) -> dict[str, np.ndarray]:
    return {key: value for key, value in full().items() if key != name}


ONE = np.zeros(1, np.float32)


@pytest.mark.parametrize(
    "state, message",
    [
        (lambda: without("at_model.layer_tr.mlp.2.bias"), "1 missing: layer_tr.mlp.2.bias"),
        (lambda: full(**{"at_model.layer_weight": ONE}), "1 surplus: layer_weight"),
        (lambda: full(**{"something.else": ONE}), "1 surplus: something.else"),
        (
            lambda: full(**{"at_model.time_tr.attn_ln.bias": ONE}),
            r"time_tr.attn_ln.bias is \[1\], expected \[24\]",
        ),
        (
            lambda: full(**{"time_tr.attn_ln.bias": ONE}),
            "time_tr.attn_ln.bias is there twice, with and without its prefix",
        ),
        (lambda: full() | whisper_part(16), "a Whisper of width 16 beside a tagger for width 24"),
        (lambda: whisper_part(24), "no time_tr.attn.query.weight.*found whisper"),
        (lambda: without("at_model.mlp_layer.1.weight"), "no mlp_layer.1.weight among its 33"),
        (
            lambda: full(**{"at_model.mlp_layer.1.weight": ONE}),
            "no matrix mlp_layer.1.weight among its 34",
        ),
        (
            lambda: named(random_reference(width=24), "base_model.model.model.audio_encoder."),
            "this is an LTU-AS state dict; use --from ltu-as",
        ),
        (lambda: {"mlp_layer.1.weight": ONE}, "a baseline of Whisper-AT's trainer"),
    ],
)
def test_wrong_files(state, message, tmp_path):
    file = write(tmp_path / "wrong.safetensors", state())
    with pytest.raises(WeightsError, match=message):
        params_of(from_whisper_at(file), what=str(file))


def test_label_tables(tmp_path):
    state = named(random_reference(width=24, labels=2))
    file = write(tmp_path / "m.safetensors", state)
    assert not from_whisper_at(file).files
    table = tmp_path / "class_labels_indices.csv"
    table.write_text(TABLE)
    assert from_whisper_at(file).files == {"labels.csv": table}
    assert read_labels(table, count=2) == ("Speech", "Male speech, man speaking")
    elsewhere = tmp_path / "there" / "mine.csv"
    elsewhere.parent.mkdir()
    elsewhere.write_text(TABLE.replace("Speech", "Talk"))
    assert from_whisper_at(file, labels=elsewhere).files == {"labels.csv": elsewhere}
    for text, message in (
        (TABLE + "2,/m/1,more\n", "has 3 rows, which must be numbered 0 to 1"),
        (TABLE.replace("\n1,", "\n5,"), "must be numbered 0 to 1"),
        ("a,b\n", r"columns are \['a', 'b'\]"),
    ):
        table.write_text(text)
        with pytest.raises(WeightsError, match=message):
            from_whisper_at(file)
    with pytest.raises(WeightsError, match="nowhere.csv does not exist"):
        from_whisper_at(file, labels=tmp_path / "nowhere.csv")


def test_impossible_configs():
    good = dict(
        tltr=dict(d_model=16, time_heads=1, layer_heads=8), labels=3, d_input=None, audio_layers=4
    )
    assert TaggerConfig.from_dict(good).width == 16
    assert TaggerConfig.from_dict(good | {"d_input": 24}).width == 24
    for change, message in (
        ({"labels": 0}, "0 labels"),
        ({"d_input": 0}, "d_input is 0"),
        ({"audio_layers": -1}, "audio_layers is -1"),
    ):
        with pytest.raises(ConfigError, match=message):
            TaggerConfig.from_dict(good | change)
