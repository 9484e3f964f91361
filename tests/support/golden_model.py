"""The official tiny LTU-AS, and one random batch, for the tests of training."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from configs import common
from ltu_jax.core.sharding import MeshConfig, make_mesh, param_shardings
from ltu_jax.models.llama import LlamaConfig
from ltu_jax.models.lora import LoRAConfig
from ltu_jax.models.ltu_as import LTUAS, LTUASConfig
from ltu_jax.models.text_batch import with_targets
from ltu_jax.models.tltr import TLTRConfig
from ltu_jax.training import losses
from ltu_jax.training.optimizer import OptimizerConfig, make_optimizer
from ltu_jax.training.resilience.guards import GuardConfig
from ltu_jax.training.state import create_state, split_trainable, state_shardings
from ltu_jax.training.step import make_train_step
from ltu_jax.weights.placement import place
from ltu_jax.weights.tensors import as_tensors
from tests.support.official_names import from_official
from tests.support.targets import dense_targets

FROZEN = (r"llama\.(embed_tokens|layers|norm|lm_head)\..+", False)
STAGE1 = ((r"audio_proj\..+", True), (r"tltr\..+", False), FROZEN)
STAGE3 = (
    (r"audio_proj\..+", True),
    (r"tltr\..+", True),
    (r"llama\..+\.lora_[ab]", True),
    FROZEN,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tiny:
    """The golden model of one stage: its functions, weights and the golden batch."""

    folder: Path
    info: dict[str, Any]
    fns: Any
    params: dict[str, np.ndarray]
    batch: dict[str, np.ndarray]

    def truth(self, name: str) -> dict[str, np.ndarray]:
        """A golden file with our names and orientation."""
        with np.load(self.folder / name) as data:
            return from_official(dict(data))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trainer:
    """A compiled step with what it needs."""

    state: Any
    frozen: dict[str, jax.Array]
    step: Any
    mesh: Any

    def run(self, batches: list[dict[str, np.ndarray]], *, dense: bool = False) -> tuple:
        """State and metrics after one step per batch."""
        state, rows = self.state, []
        for batch in batches:
            batch = jax.device_put((dense_targets if dense else with_targets)(batch))
            state, metrics = self.step(state, self.frozen, batch, jax.random.key(0))
            rows.append({name: float(value) for name, value in metrics.items()})
        return state, rows


def optimizer_config(**changes: Any) -> OptimizerConfig:
    """The official AdamW; `changes` replace fields."""
    values = dict(
        learning_rate=2e-4,
        group_multipliers=(),
        schedule="linear",
        warmup_steps=100,
        b1=0.9,
        b2=0.999,
        eps=1e-8,
        weight_decay=0.0,
        clip_norm=1.0,
        accumulation=1,
        loss_mean="micro",
    )
    return OptimizerConfig(**{**values, **changes})


def guard_config(**changes: Any) -> GuardConfig:
    """The guards of `configs/common.py`; `changes` replace fields."""
    return GuardConfig(**{**common.base("stage3", recipe="").guards.to_dict(), **changes})


def make_trainer(
    tiny: Tiny, *, rules: Any, config: OptimizerConfig, steps: int, mesh: MeshConfig | None = None
) -> Trainer:
    """The step that training compiles, around the golden model."""
    sizes = mesh or MeshConfig(data=1, fsdp=1, tensor=1)
    count = sizes.data * sizes.fsdp * sizes.tensor
    devices = make_mesh(sizes, jax.devices()[:count])
    trainable, frozen = split_trainable(tiny.params, rules)
    tx = make_optimizer(config, paths=trainable, steps=steps)
    state = create_state(trainable, tx, mesh=devices)
    loss_fn = losses.language_loss(tiny.fns, features=lambda frozen, batch: batch["features"])
    step = make_train_step(
        loss_fn,
        tx,
        mesh=devices,
        shardings=(state_shardings(state, mesh=devices), param_shardings(devices, frozen)),
        accumulation=config.accumulation,
        weigh=losses.count_targets if config.loss_mean == "token" else None,
    )
    placed = place(as_tensors(frozen), mesh=devices, dtypes=dict.fromkeys(frozen, np.float32))
    return Trainer(state=state, frozen=placed, step=step, mesh=devices)


def model_config(info: dict[str, Any]) -> LTUASConfig:
    """The sizes of the golden model, from its `config.json`."""
    dims = info["dims"]
    return LTUASConfig(
        tltr=TLTRConfig(
            d_model=dims["rep_dim"],
            time_heads=dims["tltr_time_heads"],
            layer_heads=dims["tltr_layer_heads"],
        ),
        llama=LlamaConfig(
            vocab_size=dims["vocab_size"],
            hidden_size=dims["hidden_size"],
            intermediate_size=dims["intermediate_size"],
            num_hidden_layers=dims["num_hidden_layers"],
            num_attention_heads=dims["num_attention_heads"],
            num_key_value_heads=dims["num_attention_heads"],
            head_dim=info["head_dim"],
            rms_norm_eps=dims["rms_norm_eps"],
            rope_theta=float(info["rope_theta"]),
            rope_scaling=None,
            tie_word_embeddings=False,
            attention_bias=False,
        ),
        lora=LoRAConfig(
            rank=dims["lora_r"],
            alpha=float(dims["lora_alpha"]),
            dropout=info["lora_dropout"],
            targets=("q_proj", "v_proj"),
        ),
        audio_layers=dims["tltr_layers"],
        audio_tokens=dims["audio_len"],
    )


def load_tiny(folder: Path, *, with_lora: bool) -> Tiny:
    """The golden model and batch, with LoRA (stages 2 and 3) or without (stage 1)."""
    info = json.loads((folder / "config.json").read_text())
    dims = info["dims"]
    config = model_config(info)
    params = from_official(load_file(folder / "weights.safetensors"))
    if not with_lora:
        params = {path: leaf for path, leaf in params.items() if ".lora_" not in path}
    with np.load(folder / "forward.npz") as data:
        ids, mask = data["in.input_ids"], data["in.attention_mask"][:, dims["audio_len"] :]
        length = ids.shape[1] + dims["audio_len"]
        batch = {
            "features": data["in.audio_input"].astype(np.float32),
            "input_ids": ids.astype(np.int32),
            "labels": data["in.labels"].astype(np.int32),
            "segment_ids": mask.astype(np.int32),
            "positions": np.tile(np.arange(length, dtype=np.int32), (len(ids), 1)),
        }
    fns = LTUAS.functional(config, with_lora=with_lora)
    return Tiny(folder=folder, info=info, fns=fns, params=params, batch=batch)


@pytest.fixture(scope="session")
def tiny(golden) -> Tiny:
    """With LoRA, as in stages 2 and 3."""
    return load_tiny(golden / "ltu_as_tiny_a", with_lora=True)


@pytest.fixture(scope="session")
def tiny_stage1(golden) -> Tiny:
    """Without LoRA."""
    return load_tiny(golden / "ltu_as_tiny_a", with_lora=False)
