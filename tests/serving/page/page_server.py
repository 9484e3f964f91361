"""A server that gives the page recorded answers in the shapes of the API; for tests of the page."""

import json
import threading
import time
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ltu_jax.serving.page import FILES, HEADERS

RECORDED = json.loads((Path(__file__).parent / "recorded_answers.json").read_text("utf-8"))


class PageServer(ThreadingHTTPServer):
    """Serves on loopback; what it was asked is in `asked`, what it shall answer in `answers`.

    Attributes:
        asked: (path, JSON body) of every API request.
        answers: mode -> text that is answered in place of what was recorded.
        told: of `ltu`, in place of what was recorded.
        pace: seconds between two chunks of an answer.
        key: the API key that requests need, "" for none.
        left: how many answers were not read to their end.
        modes: what the model can answer from.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, Any]] = []
        self.reset()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def reset(self) -> None:
        """Forget what was asked and said."""
        self.asked.clear()
        self.answers: dict[str, str] = {}
        self.told: dict[str, Any] = {}
        self.pace, self.key, self.left = 0.0, "", 0
        self.modes = ["joint", "audio", "text"]
        # Answers wait in their middle until it is set, explanations at their beginning.
        self.gate = threading.Event()
        self.gate.set()

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://127.0.0.1:{self.server_address[1]}/"

    def bodies(self, path: str) -> list[Any]:
        """The bodies that were sent to a path."""
        return [body for asked, body in self.asked if asked == path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: PageServer

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path in FILES:
            file = FILES[self.path]
            self._send(200, file.body, {"Content-Type": file.media_type, **HEADERS})
        elif self.path == "/v1/models":
            if self._may():
                model = {"id": "recorded", "object": "model", "created": 0, "owned_by": "test"}
                model |= {"ltu": {"modes": self.server.modes}}
                self._json(200, {"object": "list", "data": [model]})
        else:
            self._error(404, "not found")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self._may():
            return
        kind = self.headers.get_content_type()
        asked = json.loads(body) if kind == "application/json" else _form(self.headers, body)
        self.server.asked.append((self.path, asked))
        routes = {
            "/v1/chat/completions": self._chat,
            "/v1/audio/transcriptions": self._transcribe,
            "/v1/ltu/explain": self._explain,
        }
        routes[self.path](asked)

    def _may(self) -> bool:
        key = self.server.key
        if not key or self.headers["Authorization"] == f"Bearer {key}":
            return True
        self._error(401, "the API key is missing or wrong")
        return False

    def _chat(self, asked: dict) -> None:
        mode = asked.get("ltu", {"mode": "text"})["mode"]
        recorded = RECORDED["answers"][mode]
        text = self.server.answers.get(mode, recorded["text"])
        known = {name: recorded[name] for name in ("spoken_text", "seconds", "seconds_dropped")}
        known |= self.server.told
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        chunks = [_chunk({"role": "assistant", "content": ""}, ltu=known)]
        # In pieces of three characters, two of them to a chunk of bytes.
        chunks += [_chunk({"content": text[i : i + 3]}) for i in range(0, len(text), 3)]
        chunks.append(_chunk({}, "stop", ltu={**known, "tokens": recorded["tokens"]}))
        usage = {"prompt_tokens": 60, "completion_tokens": len(recorded["tokens"])}
        chunks.append({**_chunk({}), "choices": [], "usage": usage})
        try:
            for number, chunk in enumerate(chunks):
                if number == len(chunks) // 2:
                    self.wfile.write(b": ping\n\n")
                    self.server.gate.wait(20)
                self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
                self.wfile.flush()
                time.sleep(self.server.pace)
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            self.server.left += 1
        self.close_connection = True

    def _transcribe(self, asked: dict) -> None:
        text = " ".join(one["text"].strip() for one in RECORDED["segments"])
        made = {"task": "transcribe", "language": "english", "duration": RECORDED["seconds"]}
        self._json(200, {**made, "text": text, "segments": RECORDED["segments"]})

    def _explain(self, asked: dict) -> None:
        self.server.gate.wait(20)
        recorded = RECORDED["answers"][asked["ltu"]["mode"]]
        assert asked["answer_tokens"] == recorded["tokens"]
        said = [message["content"] for message in asked["messages"] if message["role"] == "user"]
        assert [part["type"] for parts in said for part in parts].count("input_audio") == 1
        made = {"object": "ltu.explanation", "model": asked["model"], "seconds_per_token": 0.4}
        made |= {"layers": recorded["layers"], "tokens": recorded["heard"]}
        self._json(200, {**made, "pieces": recorded["pieces"]})

    def _error(self, status: int, message: str) -> None:
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
        self._json(status, {"error": error})

    def _json(self, status: int, value: Any) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _chunk(delta: dict, finish: str | None = None, **more: Any) -> dict:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0}
    return {**head, "model": "recorded", "choices": [choice], "usage": None, **more}


def _form(headers: Message, body: bytes) -> dict[str, bytes]:
    """The fields of a multipart form, as the standard library reads one."""
    from email import message_from_bytes

    head = f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode()
    parts = message_from_bytes(head + body).get_payload()
    return {
        part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
        for part in parts
    }


if __name__ == "__main__":
    served = PageServer()
    print(served.url, flush=True)
    threading.Event().wait()
