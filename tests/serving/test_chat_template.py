"""Chat templates: the text that a tuned model knows, and what a hostile one may not do."""

import json

import pytest

from ltu_jax.core.errors import UserError
from ltu_jax.serving.api_error import ApiError
from ltu_jax.serving.chat_messages import ChatTurn
from ltu_jax.serving.chat_template import ChatTemplate

ASK = (ChatTurn(role="user", text="Why {{ 1 }}?", clips=()),)
TALK = (
    ChatTurn(role="system", text="Be short.", clips=()), *ASK,
    ChatTurn(role="assistant", text="So.", clips=()), *ASK,
)  # fmt: skip


def template(folder, source, **tokens) -> ChatTemplate:
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": source} | tokens))
    return ChatTemplate.of(folder)


def test_the_template_of_smollm2(smollm2_files):
    made = ChatTemplate.of(smollm2_files)
    assert made.text(ASK) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nWhy {{ 1 }}?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert made.text(TALK) == (
        "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nWhy {{ 1 }}?<|im_end|>\n"
        "<|im_start|>assistant\nSo.<|im_end|>\n<|im_start|>user\nWhy {{ 1 }}?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_where_a_template_stands(tmp_path):
    source = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    tokens = {"bos_token": {"content": "<s>"}}
    several = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": source}]
    for given in (source, several):
        assert template(tmp_path, given, **tokens).text(ASK) == "<s>[user]Why {{ 1 }}?"
    (tmp_path / "chat_template.jinja").write_text("mine")
    assert ChatTemplate.of(tmp_path).text(ASK) == "mine"


def test_blocks_that_mark_what_is_trained_on_are_text(tmp_path):
    source = (
        "{% for m in messages %}{% generation %}{{ m.content }}!{% endgeneration %}{% endfor %}"
    )
    assert template(tmp_path, source).text(TALK) == "Be short.!Why {{ 1 }}?!So.!Why {{ 1 }}?!"


@pytest.mark.parametrize("source", [None, "{% for %}"])
def test_no_template_is_an_error_of_the_folder(tmp_path, source):
    with pytest.raises(UserError, match=str(tmp_path)):
        template(tmp_path, source)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", b"{"),
        ("chat_template.json", b"[]"),
        ("chat_template.jinja", b"\xff"),
    ],
)
def test_damaged_files_are_an_error_by_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        ChatTemplate.of(tmp_path)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{% for i in range(10**6) %}{{ i }}{% endfor %}",
        "{% for m in messages %}{% for n in range(90000) %}{{ m.content * 99 }}{% endfor %}"
        "{% endfor %}",
        "{{ raise_exception('roles must alternate') }}",
        "{{ 1 + messages }}",
    ],
)
def test_what_a_template_may_not_do(tmp_path, source):
    with pytest.raises(ApiError) as refused:
        template(tmp_path, source).text(ASK)
    assert refused.value.status == 400 and refused.value.param == "messages"
