"""A language model alone, of Hugging Face or of a GGUF, behind OpenAI's client.

The truth is transformers': its chat template, its tokenizer, its greedy answers.
"""

import asyncio
import contextlib
import json
import threading

import numpy as np
import openai
import pytest
import tokenizers
import torch
import transformers
from gguf import GGUFWriter
from tokenizers import decoders, models, pre_tokenizers, trainers

from ltu_jax import serve
from ltu_jax.convert import import_weights
from ltu_jax.serving import http_server

HEADS, KV_HEADS, WIDTH, POSITIONS = 4, 2, 32, 192
SPECIALS = ["<unk>", "<|im_start|>", "<|im_end|>", "<s>"]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if 'spam' in message.content %}{{ raise_exception('no spam') }}{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ASK = [{"role": "user", "content": "Why do dogs bark? "}]
TALK = [
    {"role": "system", "content": "Be short."}, *ASK,
    {"role": "assistant", "content": "They speak."}, {"role": "user", "content": "And cats?"},
]  # fmt: skip


def tokenizer_json() -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=SPECIALS, show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    made.train_from_iterator(
        ["user assistant system; the dogs bark and the cats speak"] * 5, trainer
    )
    return made


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """The folder of Hugging Face, its model, and its tokenizer."""
    folder = tmp_path_factory.mktemp("theirs")
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=300, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, rms_norm_eps=1e-5,
            max_position_embeddings=POSITIONS, bos_token_id=3, eos_token_id=2,
            tie_word_embeddings=False,
        )
    ).eval()  # fmt: skip
    for value in model.parameters():
        torch.nn.init.normal_(value, std=0.2)
    model.save_pretrained(folder)
    tokenizer_json().save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "<|im_end|>", "unk_token": "<unk>"}
    settings = names | {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder, model, transformers.AutoTokenizer.from_pretrained(folder)


def write_gguf(file, model) -> None:
    """The same model as llama.cpp's converter lays it out."""
    writer = GGUFWriter(str(file), "llama")
    writer.add_block_count(2)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(48)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_context_length(POSITIONS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    held = json.loads(tokenizer_json().to_str())["model"]
    tokens = sorted(held["vocab"], key=held["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in SPECIALS else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in held["merges"]])
    writer.add_bos_token_id(3)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    names = {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm", "model.layers.": "blk.",
    }  # fmt: skip
    for name, value in model.state_dict().items():
        array = value.numpy()
        for heads, part in ((HEADS, "q_proj"), (KV_HEADS, "k_proj")):
            if part in name:  # rotated in pairs of neighbours there
                array = array.reshape(heads, 2, -1, WIDTH).swapaxes(1, 2).reshape(array.shape)
        for theirs_, theirs_in_gguf in names.items():
            name = name.replace(theirs_, theirs_in_gguf)
        writer.add_tensor(name, np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@contextlib.contextmanager
def served(folder, monkeypatch):
    """`python -m ltu_jax.serve --checkpoint FOLDER`, in a thread; yields the client."""
    apps = []
    with monkeypatch.context() as patched:
        patched.setattr(http_server, "run", lambda app, *, listener: apps.append((app, listener)))
        with pytest.raises(SystemExit) as ended:
            serve.main(["--checkpoint", str(folder), "--port", "0", "--model-name", "plain",
                        "--max-batch", "2", "--slot-tokens", str(POSITIONS)])  # fmt: skip
        assert not ended.value.code
    ((app, listener),) = apps
    ready, begun = threading.Event(), []
    app.on_ready = ready.set

    async def run() -> None:
        begun.extend([asyncio.get_running_loop(), asyncio.Event()])
        await http_server.serve(app, listener, stop=begun[1], hurry=begun[1])

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    try:
        assert ready.wait(300), app.failure
        with openai.OpenAI(
            base_url=f"http://127.0.0.1:{listener.getsockname()[1]}/v1", api_key="none",
            max_retries=0, timeout=300, _strict_response_validation=True,
        ) as client:  # fmt: skip
            yield client
    finally:
        begun[0].call_soon_threadsafe(begun[1].set)
        thread.join(60)


@pytest.mark.parametrize("kind", ["hugging face", "gguf"])
def test_it_answers_by_its_own_template(theirs, kind, tmp_path, monkeypatch):
    folder, model, tokenizer = theirs
    if kind == "gguf":
        write_gguf(tmp_path / "model.gguf", model)
        folder = tmp_path / "ours"
        import_weights("gguf", weights=[tmp_path / "model.gguf"], out=folder)
    (tmp_path / "no folder").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no folder"))  # nothing is kept
    with served(folder, monkeypatch) as client:
        for messages in (ASK, TALK):
            ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
            with torch.no_grad():
                known = model.generate(
                    torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), do_sample=False,
                    max_new_tokens=16, pad_token_id=0,
                )[0, len(ids) :].tolist()  # fmt: skip
            told = client.chat.completions.create(
                model="plain", messages=messages, max_completion_tokens=16
            )
            assert told.usage.prompt_tokens == len(ids)
            assert told.ltu["tokens"] == known
            text = tokenizer.decode(known, skip_special_tokens=True).strip()
            assert told.choices[0].message.content == text
            stream = client.chat.completions.create(
                model="plain", messages=messages, max_completion_tokens=16, stream=True
            )
            assert "".join(one.choices[0].delta.content or "" for one in stream) == text
        with pytest.raises(openai.BadRequestError, match="no spam"):
            client.chat.completions.create(
                model="plain", messages=[{"role": "user", "content": "spam"}]
            )
        with pytest.raises(openai.BadRequestError, match="language model alone") as refused:
            client.chat.completions.create(
                model="plain",
                messages=[{"role": "user", "content": [
                    {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
                ]}],
            )  # fmt: skip
        assert "messages[0]" in refused.value.param
        with pytest.raises(openai.NotFoundError):
            client.audio.transcriptions.create(model="plain", file=("x.wav", b"RIFF"))
        assert [one.id for one in client.models.list()] == ["plain"]
