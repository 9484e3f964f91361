// The public HTTP API, as any other client uses it.

export class ApiError extends Error {
  constructor(message, { status = 0, param = null } = {}) {
    super(message);
    this.status = status;
    this.param = param;
  }
}

let key = "";

export function setKey(value) {
  key = value;
}

async function call(path, init = {}) {
  const headers = new Headers(init.headers);
  if (key) headers.set("Authorization", `Bearer ${key}`);
  let response;
  try {
    response = await fetch(path, { ...init, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer. Is it still running?");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const { message = `The server answered ${response.status}.`, param = null } = body.error ?? {};
  throw new ApiError(message, { status: response.status, param });
}

function post(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  return call(path, { method: "POST", headers, body: JSON.stringify(body), signal });
}

// The models that the server offers.
export async function models() {
  return (await (await call("/v1/models")).json()).data;
}

// What is said in a clip, with times.
export async function transcribe(blob, { model, signal }) {
  const form = new FormData();
  form.append("file", blob, "clip.wav");
  form.append("model", model);
  form.append("response_format", "verbose_json");
  form.append("timestamp_granularities[]", "segment");
  return (await call("/v1/audio/transcriptions", { method: "POST", body: form, signal })).json();
}

// Yields the chunks of a streamed chat completion.
export async function* chat(request, signal) {
  const body = { ...request, stream: true, stream_options: { include_usage: true } };
  const response = await post("/v1/chat/completions", body, signal);
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(chunk.error.message, { param: chunk.error.param });
    yield chunk;
  }
  throw new ApiError("The connection was lost before the answer was complete.");
}

// What an answer listened to: arrays of the library's `model.explain`.
export async function explain(request) {
  return (await post("/v1/ltu/explain", request)).json();
}

// The data of server-sent events; lines may come in any pieces.
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  let data = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      buffer += value;
      const lines = buffer.split(/\r\n|\n|\r(?!$)/);
      buffer = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
        else if (line === "" && data.length) {
          yield data.join("\n");
          data = [];
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
