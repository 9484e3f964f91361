// The page: clips on one side, questions about them on the other.

import * as api from "./api.js";
import { clipOf, drawClips, encoded, Sources } from "./clips.js";
import { ExplanationView } from "./explanation.js";
import { Player } from "./player.js";
import { fromJson, save, toHtml, toJson } from "./share.js";
import { drawSpectrogram, logMel } from "./spectrogram.js";
import { button, make } from "./text.js";
import { TranscriptView } from "./transcript.js";
import { clipsOf, TurnsView } from "./turns.js";

const $ = (id) => document.getElementById(id);

// Those of the published evaluation, and of its demo.
const QUESTIONS = [
  "What can be inferred from the audio?",
  "Write an audio caption describing the sound.",
  "Can you identify the spoken text?",
  "How would you describe the speaker's emotions?",
  "Is the speaker male or female?",
  "How old is the speaker?",
  "Describe the music genre with a sentence?",
];

const state = {
  model: "",
  hears: true, // false for a language model without audio
  conversations: [{ clips: [], turns: [] }],
  current: 0,
  running: null,
};
const conversation = () => state.conversations[state.current];

const player = new Player();
const transcript = new TranscriptView(player);
const explanation = new ExplanationView(player);
const turns = new TurnsView({
  seek(seconds, clip) {
    if (clip !== player.clip) view(clip);
    player.seek(seconds);
  },
  copy,
  regenerate,
  explain: (turn, answer) => explain(turn, answer).catch(fail),
  word,
});

// --- what is said to the reader ---------------------------------------------------------------

let alertTimer = 0;

function fail(error) {
  if (error.name === "AbortError") return;
  $("alert").textContent = error.message;
  $("alert").hidden = false;
  clearTimeout(alertTimer);
  alertTimer = setTimeout(() => ($("alert").hidden = true), 12_000);
}

function say(text) {
  $("said").textContent = text;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    fail(new Error("The browser does not let this page use the clipboard."));
  }
}

let keyGiven = null; // while the reader is asked

// Calls; where the server wants a key, asks for it and calls again, until the reader gives none.
async function withKey(action) {
  for (;;) {
    try {
      return await action();
    } catch (error) {
      if (error.status !== 401) throw error;
      keyGiven ??= askForKey().finally(() => (keyGiven = null));
      if (!(await keyGiven)) throw error;
    }
  }
}

async function askForKey() {
  const dialog = $("key");
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  api.setKey($("key-value").value);
  return dialog.returnValue === "given";
}

// --- clips -----------------------------------------------------------------------------------

function view(clip) {
  if (clip !== player.clip) explanation.hide();
  player.show(clip ?? null);
  transcript.show(clip ?? null);
  drawClips(conversation().clips, clip, { show: view, remove });
  $("all-clips-label").hidden = conversation().clips.length < 2;
}

function add(clip) {
  conversation().clips.push(clip);
  view(clip);
  say(`${clip.name} is there, ${clip.seconds.toFixed(1)} seconds.`);
  if (!clip.transcript && state.hears) write(clip);
}

function remove(clip) {
  const { clips } = conversation();
  const place = clips.indexOf(clip);
  clips.splice(place, 1);
  view(clip === player.clip ? (clips[place] ?? clips.at(-1)) : player.clip);
  $("choose").focus();
}

async function write(clip) {
  try {
    const made = await withKey(() => api.transcribe(clip.blob, { model: state.model }));
    clip.transcript = { segments: made.segments ?? [], language: made.language };
  } catch (error) {
    clip.transcript = { segments: [], error: error.message };
  }
  if (transcript.clip === clip) transcript.show(clip);
}

// --- questions -------------------------------------------------------------------------------

async function messagesOf(turn) {
  const unsent = new Set(clipsOf(turn));
  const messages = [];
  for (const one of [...turn.before, turn]) {
    const content = [];
    for (const clip of one.clips) {
      if (!unsent.delete(clip)) continue;
      const audio = { data: await encoded(clip), format: "wav" };
      content.push({ type: "input_audio", input_audio: audio });
    }
    content.push({ type: "text", text: one.question });
    messages.push({ role: "user", content });
    if (one !== turn) messages.push({ role: "assistant", content: one.answers[0].text });
  }
  return messages;
}

function newAnswer(mode) {
  return { mode, text: "", state: "streaming", error: "", version: 1, temperature: null, seed: 0 };
}

function ask(question) {
  const { clips, turns: earlier } = conversation();
  if (state.hears && !clips.length) {
    fail(new Error("Add a sound first: record, choose a file, or take an example."));
    return;
  }
  const about = $("all-clips").checked && clips.length > 1 ? [...clips] : [player.clip];
  const mode = document.querySelector("input[name=mode]:checked").value;
  const modes = mode === "all" ? ["joint", "audio", "text"] : [mode];
  const before = $("remember").checked ? earlier.filter(({ answers }) => answers[0].text) : [];
  const turn = {
    question,
    clips: about.filter(Boolean),
    before,
    answers: modes.map(newAnswer),
  };
  for (const answer of turn.answers) {
    answer.temperature = $("temperature").valueAsNumber || 0;
    answer.seed = $("seed").valueAsNumber || 0;
  }
  earlier.push(turn);
  turns.add(turn);
  run(turn, turn.answers);
}

// Makes another answer in the place of one, drawn by another seed.
function regenerate(turn, answer) {
  if (state.running) {
    fail(new Error("Another answer is being made. Stop it, or wait for its end."));
    return;
  }
  Object.assign(answer, { text: "", state: "streaming", error: "", version: answer.version + 1 });
  for (const known of ["ltu", "usage", "tokens", "explanation", "seconds"]) delete answer[known];
  answer.temperature = Math.max($("temperature").valueAsNumber || 0, 0.7);
  answer.seed = ($("seed").valueAsNumber || 0) + answer.version - 1;
  run(turn, [answer]);
}

async function run(turn, answers) {
  state.running = new AbortController();
  const { signal } = state.running;
  $("send").hidden = true;
  $("stop").hidden = false;
  explanation.hide();
  await Promise.all(answers.map((answer) => withKey(() => receive(turn, answer, signal)).catch(
    (error) => {
      answer.state = error.name === "AbortError" ? "stopped" : "failed";
      answer.error = error.name === "AbortError" ? "" : error.message;
      turns.draw(turn, answer);
    },
  )));
  state.running = null;
  $("stop").hidden = true;
  $("send").hidden = false;
  say(answers.map(({ text, error }) => `Answer: ${text || error}`).join(" "));
}

async function receive(turn, answer, signal) {
  const started = performance.now();
  answer.text = "";
  answer.state = "streaming";
  turns.draw(turn, answer);
  const request = {
    model: state.model,
    messages: await messagesOf(turn),
    temperature: answer.temperature,
    seed: answer.seed,
  };
  if ($("longest").value) request.max_completion_tokens = $("longest").valueAsNumber;
  if (state.hears) request.ltu = { mode: answer.mode };
  for await (const chunk of api.chat(request, signal)) {
    if (chunk.usage) answer.usage = chunk.usage;
    if (chunk.ltu) {
      answer.ltu = { ...answer.ltu, ...chunk.ltu };
      answer.tokens = answer.ltu.tokens;
      const about = answer.ltu.clips?.at(-1) ?? answer.ltu;
      const clip = turn.clips.at(-1);
      if (clip && about.seconds && answer.mode !== "text") {
        clip.heard = about.seconds - about.seconds_dropped;
        if (clip === player.clip) player.hear(clip.heard);
      }
    }
    answer.text += chunk.choices[0]?.delta?.content ?? "";
    turns.stream(turn, answer);
  }
  answer.state = "done";
  answer.seconds = (performance.now() - started) / 1000;
  turns.draw(turn, answer);
}

// --- what it listened to ---------------------------------------------------------------------

async function explain(turn, answer) {
  const request = {
    model: state.model,
    messages: await messagesOf(turn),
    ltu: { mode: answer.mode },
    answer_tokens: answer.tokens,
  };
  answer.explanation = await withKey(() => api.explain(request));
  turns.draw(turn, answer);
  if (conversation().turns.includes(turn)) word(turn, answer, -1);
}

// Shows where one token of an answer lies; all of them for -1.
function word(turn, answer, index) {
  const [clip] = clipsOf(turn);
  if (clip !== player.clip) view(clip);
  explanation.show(answer.explanation, index);
}

// --- conversations ---------------------------------------------------------------------------

function open(index) {
  state.running?.abort();
  state.current = index;
  explanation.hide();
  turns.show(conversation().turns);
  view(conversation().clips.at(-1));
}

function begin(clips, started = []) {
  state.conversations.push({ clips, turns: started });
  open(state.conversations.length - 1);
}

function listConversations() {
  const items = state.conversations.map(({ clips, turns: asked }, index) => {
    const title = asked[0]?.question ?? "Nothing asked yet";
    const about = clips.map(({ name }) => name).join(", ") || "no sound";
    const choose = button(title, () => {
      open(index);
      $("history").close();
    });
    if (index === state.current) choose.setAttribute("aria-current", "true");
    return make("li", "", choose, make("p", "about", `${about} · ${asked.length} asked`));
  });
  $("conversations").replaceChildren(...items);
}

async function openSaved(text, name) {
  const saved = await fromJson(text, name);
  const clips = saved.clips.map(({ samples, ...rest }) => clipOf(samples, rest));
  const started = saved.turns.map((turn) => ({
    ...turn,
    before: [],
    clips: turn.clips.map((clip) => clips[saved.clips.indexOf(clip)]).filter(Boolean),
  }));
  begin(clips, started);
}

function picture(clip) {
  const canvas = make("canvas");
  clip.mel ??= logMel(clip.samples);
  drawSpectrogram(canvas, clip.mel);
  return canvas.toDataURL("image/png");
}

async function share(kind) {
  const whole = { model: state.model, ...conversation() };
  const made = kind === "json" ? JSON.stringify(await toJson(whole)) : await toHtml(whole, picture);
  const type = kind === "json" ? "application/json" : "text/html";
  save(made, { name: `conversation.${kind}`, type });
}

// --- the page itself -------------------------------------------------------------------------

const THEMES = [
  ["", "◐", "as the system"],
  ["light", "☀", "light"],
  ["dark", "☾", "dark"],
];

function theme(step) {
  const root = document.documentElement;
  const now = THEMES.findIndex(([name]) => name === (root.dataset.theme ?? ""));
  const [name, sign, words] = THEMES[(now + step) % THEMES.length];
  root.dataset.theme = name;
  $("theme").textContent = sign;
  $("theme").setAttribute("aria-label", `Theme: ${words}`);
  player.recolour();
}

function connect() {
  new Sources({ add, open: openSaved, fail });
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const question = $("question").value.trim();
    if (!question || state.running) return;
    $("question").value = "";
    ask(question);
  });
  $("question").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    $("ask").requestSubmit();
  });
  $("stop").addEventListener("click", () => state.running?.abort());
  document.addEventListener("keydown", (event) => {
    const closes = event.defaultPrevented || document.querySelector("dialog[open]");
    if (event.key === "Escape" && !closes) state.running?.abort();
  });
  $("new").addEventListener("click", () => begin([...conversation().clips]));
  $("open-history").addEventListener("click", () => {
    listConversations();
    $("history").showModal();
  });
  $("share-html").addEventListener("click", () => share("html").catch(fail));
  $("share-json").addEventListener("click", () => share("json").catch(fail));
  $("theme").addEventListener("click", () => theme(1));
  const suggest = (text) =>
    make("li", "", button(text, () => {
      $("question").value = text;
      $("question").focus();
    }, "suggestion"));
  $("suggestions").replaceChildren(...QUESTIONS.map(suggest));
}

async function start() {
  connect();
  view(null);
  try {
    const [model] = await withKey(api.models);
    state.model = model.id;
    state.hears = model.ltu?.modes?.includes("joint") ?? true;
    $("listen").hidden = !state.hears;
    document.querySelector(".modes").hidden = !state.hears;
    $("model").textContent = model.id;
  } catch (error) {
    $("model").textContent = "no model";
    fail(error);
  }
}

start();
