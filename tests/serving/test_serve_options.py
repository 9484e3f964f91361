"""Options of `python -m ltu_jax.serve`: weights from everywhere, errors that name the option."""

import socket
from types import SimpleNamespace

import numpy as np
import pytest

from ltu_jax import serve
from ltu_jax.core.errors import UserError
from ltu_jax.serving import http_server
from ltu_jax.weights.store import load_weights, save_weights
from tests.support import hub


@pytest.fixture
def made(monkeypatch):
    """Return what the command would serve: its application."""
    apps = []
    monkeypatch.setattr(http_server, "run", lambda app, *, listener: apps.append((app, listener)))

    def make(*arguments):
        with pytest.raises(SystemExit) as ended:
            serve.main([*arguments, "--port", "0", "--max-batch", "1", "--slot-tokens", "64"])
        assert not ended.value.code
        app, listener = apps.pop()
        listener.close()
        app.engine.close()
        return app

    return make


def test_a_language_model_of_the_hub(made, tiny_weights, golden, tmp_path):
    whole, template = load_weights(tiny_weights["ltu-as"]), tmp_path / "chat_template.jinja"
    template.write_text("{% for one in messages %}{{ one.content }}{% endfor %}")
    save_weights(
        tmp_path / "llama",
        kind="llama",
        config=whole.config["llama"],
        params={
            path: np.asarray(leaf)
            for path, leaf in whole.params.items()
            if path.startswith("llama.") and "lora" not in path
        },
        source={"test": "random"},
        files={
            "tokenizer.model": golden / "text_cases" / "spm320.model",
            "chat_template.jinja": template,
        },
    )
    with hub.served({"org/llama": tmp_path / "llama"}, cache=tmp_path / "hub"):
        app = made("--checkpoint", "hf:org/llama@v1.1")
    assert app.settings.model_name == "org/llama" and app.chat.hearing is None
    assert app.chat.template.source == template.read_text()


def test_a_model_of_a_bucket(made, bucket, tiny_weights, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = bucket.take(tiny_weights["ltu-as"], "weights/mine")
    whisper = bucket.take(tiny_weights["whisper"], "weights/whisper")
    app = made("--checkpoint", model, "--whisper", whisper)
    assert app.settings.model_name == "mine"
    assert app.chat.hearing.batches.whispers.listener is not None


def test_errors_name_the_option(capsys, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        cases = {
            ("--port", "70000"): "--port 70000",
            ("--port", str(taken.getsockname()[1])): f"--port {taken.getsockname()[1]}",
            ("--host", "nowhere.invalid"): "--host nowhere.invalid",
            ("--max-batch", "0"): "--max-batch 0",
            ("--queue", "0"): "--queue 0",
            ("--max-body-mb", "0"): "--max-body-mb 0",
            ("--cache-mb", "-1"): "--cache-mb -1",
            ("--decode-workers", "0"): "--decode-workers 0",
            ("--deadline", "nan"): "--deadline nan",
            ("--drain", "0"): "--drain 0",
            ("--slot-tokens", "1"): "--slot-tokens 1",
            ("--drafts", "-1"): "--drafts -1",
            ("--model-name", ""): "--model-name",
            ("--model-name", "x" * 257): "--model-name",
            ("--api-key-file", str(tmp_path / "keys")): f"--api-key-file {tmp_path / 'keys'}",
            ("--checkpoint", str(tmp_path / "run")): str(tmp_path / "run"),
            ("--checkpoint", "s3://a/b"): "s3://a/b",
        }
        for given, named in cases.items():
            with pytest.raises(SystemExit) as ended:
                serve.main(["--checkpoint", str(tmp_path), "--port", "0", *given])
            told = capsys.readouterr().err
            assert ended.value.code == 2 and named in told and "Traceback" not in told, given


def test_slots_are_no_longer_than_the_model_s_positions():
    model = SimpleNamespace(path="m", positions=1_024)
    assert serve._slot_tokens(None, model) == serve._slot_tokens(1_024, model) == 1_024
    with pytest.raises(UserError, match="1,024"):
        serve._slot_tokens(2_048, model)
