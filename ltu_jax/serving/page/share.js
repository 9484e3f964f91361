// A conversation as one file: a page that needs nothing else, or JSON that can be opened again.

import { base64, dataUrl, decode } from "./audio.js";
import { clock, make } from "./text.js";

export const FORMAT = "ltu_jax conversation 1";

const STYLE = `
:root { color-scheme: light dark; }
body { font: 1.05rem/1.6 Charter, "Iowan Old Style", Georgia, serif; max-width: 44rem;
  margin: 3rem auto; padding: 0 1rem; }
h1, h2, h3, time, small { font-family: system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; } h3 { font-size: 1rem; }
audio, img { display: block; width: 100%; margin: .5rem 0; }
img { height: 8rem; border-radius: 6px; image-rendering: auto; }
p { white-space: pre-wrap; overflow-wrap: anywhere; }
time, small { opacity: .7; font-size: .8rem; }
`;

// The conversation as plain data.
export async function toJson({ model, clips, turns }) {
  const stored = clips.map(async ({ name, seconds, transcript, blob }) => {
    return { name, seconds, transcript: transcript ?? null, wav: await base64(blob) };
  });
  return {
    format: FORMAT,
    model,
    clips: await Promise.all(stored),
    turns: turns.map(({ question, clips: about, answers }) => ({
      question,
      clips: about.map((clip) => clips.indexOf(clip)),
      answers: answers.map(({ mode, text, ltu = null, usage = null, explanation = null }) => {
        return { mode, text, ltu, usage, explanation };
      }),
    })),
  };
}

// The clips and turns of such data; what is not of this format is refused.
export async function fromJson(text, name) {
  let stored;
  try {
    stored = JSON.parse(text);
  } catch {
    throw new Error(`${name} is no JSON.`);
  }
  if (stored?.format !== FORMAT) throw new Error(`${name} is no conversation saved by this page.`);
  const clips = [];
  for (const clip of stored.clips) {
    const bytes = Uint8Array.from(atob(clip.wav), (c) => c.charCodeAt(0));
    const samples = await decode(new Blob([bytes]), String(clip.name));
    clips.push({ name: String(clip.name), samples, transcript: clip.transcript ?? undefined });
  }
  const turns = stored.turns.map((turn) => ({
    question: String(turn.question),
    clips: turn.clips.map((index) => clips[index]),
    answers: turn.answers.map((answer) => ({
      ...answer,
      text: String(answer.text),
      state: "done",
      version: 1,
    })),
  }));
  return { clips, turns };
}

// The conversation as a page of its own, with its sounds and pictures in it.
export async function toHtml(conversation, picture) {
  const page = document.implementation.createHTMLDocument("A conversation about a sound");
  // Elements of a document that is nowhere shown load nothing.
  const put = (tag, attributes, ...children) => {
    const element = page.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const content = "default-src 'none'; style-src 'unsafe-inline'; media-src data:; img-src data:";
  page.documentElement.lang = "en";
  page.head.prepend(
    put("meta", { charset: "utf-8" }),
    put("meta", { "http-equiv": "Content-Security-Policy", content }),
    put("meta", { name: "viewport", content: "width=device-width, initial-scale=1" }),
  );
  const body = [
    put("h1", {}, "A conversation about a sound"),
    put("p", {}, put("small", {}, conversation.model)),
  ];
  for (const clip of conversation.clips) {
    body.push(
      put("h2", {}, clip.name),
      put("audio", { controls: "", src: await dataUrl(clip.blob) }),
      put("img", { src: picture(clip), alt: `Spectrogram of ${clip.name}` }),
    );
    for (const { start, text } of clip.transcript?.segments ?? []) {
      body.push(put("p", {}, put("time", {}, clock(start)), ` ${text.trim()}`));
    }
  }
  for (const { question, answers } of conversation.turns) {
    body.push(put("h2", {}, question));
    for (const { mode, text } of answers) {
      body.push(put("p", {}, put("small", {}, `${mode}: `), text));
    }
  }
  page.body.append(...body);
  // The policy of this page forbids style elements even in a document that is not shown.
  const text = page.documentElement.outerHTML;
  const styled = text.replace("</head>", () => `<style>${STYLE}</style></head>`);
  return `<!doctype html>\n${styled}\n`;
}

// Hands a file to the reader of the page.
export function save(text, { name, type }) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = make("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
