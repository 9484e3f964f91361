"""LTU-AS in PyTorch as the official code puts it together, for the benchmarks and their tests.

`transformers` LLaMA with `peft` LoRA, and a TLTR written out here. The arithmetic is that of the
official training: left-padded rows, audio before text, positions that count pads, logits of all
text positions, one mean over the targets, AdamW.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import peft
import torch
import transformers
from torch import nn
from torch.nn import functional

from ltu_jax.models.ltu_as import LTUASConfig
from ltu_jax.weights.formats import hf_llama, official_ltu_as
from ltu_jax.weights.tensors import as_tensors

_EPS = 1e-5


class Attention(nn.Module):
    """Whisper's multi-head attention without mask: no key bias."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, time, width = x.shape

        def heads(y: torch.Tensor) -> torch.Tensor:
            return y.view(rows, time, self.heads, -1).transpose(1, 2)

        q, k, v = heads(self.query(x)), heads(self.key(x)), heads(self.value(x))
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(rows, time, width))


class Block(nn.Module):
    """Whisper's pre-norm block."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn = Attention(width, heads)
        self.attn_ln = nn.LayerNorm(width, eps=_EPS)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.mlp_ln = nn.LayerNorm(width, eps=_EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.attn_ln(x))
        return x + self.mlp(self.mlp_ln(x))


class TLTR(nn.Module):
    """A block over time in each layer, a block over layers at each step, mean over layers."""

    def __init__(self, width: int, time_heads: int, layer_heads: int):
        super().__init__()
        self.time_tr = Block(width, time_heads)
        self.layer_tr = Block(width, layer_heads)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        rows, layers, steps, width = features.shape
        x = self.time_tr(features.reshape(rows * layers, steps, width))
        x = x.view(rows, layers, steps, width).transpose(1, 2)
        x = self.layer_tr(x.reshape(rows * steps, layers, width))
        return x.view(rows, steps, layers, width).mean(2)


class LTUAS(nn.Module):
    """Audio tokens before the text of a LLaMA with LoRA."""

    def __init__(self, config: LTUASConfig):
        super().__init__()
        self.audio_tokens = config.audio_tokens
        width = config.tltr.d_model
        self.audio_encoder = TLTR(width, config.tltr.time_heads, config.tltr.layer_heads)
        self.audio_proj = nn.Sequential(
            nn.LayerNorm(width, eps=_EPS, elementwise_affine=False),
            nn.Linear(width, config.llama.hidden_size),
        )
        settings = hf_llama.hf_config(dataclasses.asdict(config.llama), dtype="float32", tokens={})
        made = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
        language = transformers.AutoModelForCausalLM.from_config(made, attn_implementation="sdpa")
        lora = peft.LoraConfig(
            r=config.lora.rank,
            lora_alpha=config.lora.alpha,
            lora_dropout=config.lora.dropout,
            target_modules=list(config.lora.targets),
            task_type="CAUSAL_LM",
        )
        self.language = peft.get_peft_model(language, lora)

    def forward(
        self,
        input_ids: torch.Tensor,
        features: torch.Tensor,
        *,
        attention_mask: torch.Tensor,
        positions: torch.Tensor,
    ) -> torch.Tensor:
        """Return logits [B, T, V] of the text positions.

        Args:
            input_ids: int64 [B, T], pads on the left.
            features: [B, W, A, D].
            attention_mask: [B, T], 1 at real tokens.
            positions: int64 [B, A+T].
        """
        causal = self.language.get_base_model()
        audio = self.audio_proj(self.audio_encoder(features))
        text = causal.model.embed_tokens(input_ids)
        ones = attention_mask.new_ones(len(input_ids), self.audio_tokens)
        hidden = causal.model(
            inputs_embeds=torch.cat([audio.to(text.dtype), text], dim=1),
            attention_mask=torch.cat([ones, attention_mask], dim=1),
            position_ids=positions,
            use_cache=False,
        ).last_hidden_state
        return causal.lm_head(hidden[:, self.audio_tokens :])

    def trainables(self) -> list[nn.Parameter]:
        """Return the parameters that stages 2 and 3 train: TLTR, projection, LoRA."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]


def build(config: LTUASConfig, params: Mapping[str, np.ndarray], *, base_dtype: Any) -> LTUAS:
    """Build the model with our weights; the frozen base in `base_dtype`, the rest float32."""
    with torch.device("meta"):
        model = LTUAS(config)
    given = official_ltu_as.to_official(dataclasses.asdict(config), as_tensors(params))
    state = {}
    for name in model.state_dict():
        base = name.startswith("language.") and "lora_" not in name
        array = np.asarray(given[_official(name)].read())
        state[name] = tensor_of(array, base_dtype if base else torch.float32)
    model.load_state_dict(state, strict=True, assign=True)
    causal = model.language.get_base_model()
    if config.llama.tie_word_embeddings:
        causal.lm_head.weight = causal.model.embed_tokens.weight
    # its frequencies are no part of a state dict, and "meta" made none
    rotary = causal.model.rotary_emb
    causal.model.rotary_emb = type(rotary)(config=causal.config)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith("language.") or "lora_" in name)
    return model


def tensor_of(array: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """Copy numbers to a tensor of `dtype`, bfloat16 without a way through float32."""
    if dtype == torch.bfloat16 and array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(np.array(array.view(np.uint16))).view(dtype)
    return torch.from_numpy(array.astype(np.float32)).to(dtype)


def on_cuda(model: nn.Module) -> nn.Module:
    """Move a model to the GPU, its weights laid out as those of a checkpoint: row after row."""
    model = model.to("cuda")
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
    return model


def _official(name: str) -> str:
    if name.startswith("language."):
        return official_ltu_as.canonical(name.removeprefix("language."))
    return f"{official_ltu_as.ROOT}model.{name}"


def loss_of(model: LTUAS, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the mean cross-entropy of the next token over targets that are not -100, float32."""
    logits = model(
        batch["input_ids"],
        batch["features"],
        attention_mask=batch["attention_mask"],
        positions=batch["positions"],
    )
    logits, labels = logits[:, :-1].float(), batch["labels"][:, 1:]
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)


def to_torch(batch: Mapping[str, np.ndarray], *, device: str) -> dict[str, torch.Tensor]:
    """Convert a batch of layout "reference" to the tensors of the official collator."""
    tensors = {
        name: torch.from_numpy(np.asarray(batch[name], np.int64)).to(device)
        for name in ("input_ids", "labels", "positions")
    }
    tensors["attention_mask"] = torch.from_numpy(np.asarray(batch["segment_ids"] > 0, np.int64)).to(
        device
    )
    tensors["features"] = torch.from_numpy(np.asarray(batch["features"], np.float32)).to(device)
    return tensors


@dataclasses.dataclass
class Trainer:
    """AdamW over the trainables with the official settings, on CPU or GPU."""

    model: LTUAS
    learning_rate: float
    clip_norm: float
    autocast: bool

    def __post_init__(self) -> None:
        self.device = next(self.model.parameters()).device.type
        self.optimizer = torch.optim.AdamW(
            self.model.trainables(),
            lr=self.learning_rate,
            betas=(0.9, 0.999),
            eps=1e-8,
            weight_decay=0.0,
        )

    def run(self, batches: Sequence[Mapping[str, np.ndarray]]) -> float:
        """Make one optimiser step for each batch; return the last loss."""
        self.model.train()
        loss = torch.zeros(())
        for batch in batches:
            with torch.autocast(self.device, torch.bfloat16, enabled=self.autocast):
                loss = loss_of(self.model, to_torch(batch, device=self.device))
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.trainables(), self.clip_norm)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return float(loss)

    def loss(self, batch: Mapping[str, np.ndarray]) -> float:
        """Return the loss without dropout and gradient."""
        self.model.eval()
        with torch.no_grad(), torch.autocast(self.device, torch.bfloat16, enabled=self.autocast):
            return float(loss_of(self.model, to_torch(batch, device=self.device)))


class _OneDNNLinear(torch.autograd.Function):
    """A linear layer through oneDNN, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: Any) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, Any, Any]:
        x, weight = ctx.saved_tensors
        linear = torch.ops.mkldnn._linear_pointwise
        below = above = bias = None
        gradient = gradient.contiguous()
        if ctx.needs_input_grad[0]:
            below = linear(gradient, weight.t().contiguous(), None, "none", [], "")
        if ctx.needs_input_grad[1]:
            rows = gradient.flatten(0, -2).t().contiguous()
            above = linear(rows, x.flatten(0, -2).t().contiguous(), None, "none", [], "")
        if ctx.biased and ctx.needs_input_grad[2]:
            bias = gradient.flatten(0, -2).sum(0)
        return below, above, bias


def use_onednn(model: nn.Module) -> None:
    """Send every linear layer through oneDNN instead of the BLAS that PyTorch was built with.

    PyTorch's float32 products go to MKL, which on CPUs of other makers than Intel does not use
    AVX-512. No switch of PyTorch changes that; this stands for one, so that a benchmark can say
    how much of a difference is the matrix product alone.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.forward = lambda x, m=module: _OneDNNLinear.apply(x, m.weight, m.bias)
