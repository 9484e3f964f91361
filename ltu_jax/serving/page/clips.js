// Clips of a conversation: files, recordings and examples, as they come in.

import { base64, decode, RATE, wav } from "./audio.js";
import { Recorder } from "./recorder.js";
import { button, make } from "./text.js";

const $ = (id) => document.getElementById(id);

// A clip of samples at 16 kHz. Its WAV file is what is sent.
export function clipOf(samples, { name, transcript }) {
  const blob = wav(samples);
  return {
    name,
    samples,
    transcript,
    blob,
    seconds: samples.length / RATE,
    url: URL.createObjectURL(blob),
    encoded: null,
  };
}

// The base64 text of a clip's file, made once.
export function encoded(clip) {
  clip.encoded ??= base64(clip.blob);
  return clip.encoded;
}

// The ways in: `add(clip)` gets each clip, `open(text, name)` a saved conversation,
// `fail(error)` what went wrong.
export class Sources {
  #recorder = null;
  #starting = false;
  #takes = 0;
  #add;
  #open;
  #fail;

  constructor({ add, open, fail }) {
    this.#add = add;
    this.#open = open;
    this.#fail = fail;
    $("record").addEventListener("click", () => this.#record());
    $("choose").addEventListener("click", () => $("files").click());
    $("files").addEventListener("change", () => {
      this.#take([...$("files").files]);
      $("files").value = "";
    });
    const drop = $("drop");
    for (const event of ["dragenter", "dragover"]) {
      document.addEventListener(event, (given) => {
        given.preventDefault();
        drop.classList.add("over");
      });
    }
    document.addEventListener("dragleave", (given) => {
      if (!given.relatedTarget) drop.classList.remove("over");
    });
    document.addEventListener("drop", (given) => {
      given.preventDefault();
      drop.classList.remove("over");
      this.#take([...given.dataTransfer.files]);
    });
    addEventListener("pagehide", () => this.#recorder?.release());
    this.#examples().catch(() => {});
  }

  async #take(files) {
    for (const file of files) {
      try {
        if (file.name.endsWith(".json")) await this.#open(await file.text(), file.name);
        else this.#add(clipOf(await decode(file, file.name), { name: file.name }));
      } catch (error) {
        this.#fail(error);
      }
    }
  }

  async #examples() {
    const listed = await (await fetch("/page/examples/examples.json")).json();
    const buttons = listed.map(({ file, name }) =>
      button(
        name,
        async () => {
          try {
            const response = await fetch(`/page/examples/${file}`);
            this.#add(clipOf(await decode(await response.blob(), name), { name }));
          } catch (error) {
            this.#fail(error);
          }
        },
        "example",
      ),
    );
    $("examples").replaceChildren(...buttons);
  }

  async #record() {
    if (this.#starting) return; // the browser still asks whether it may
    if (this.#recorder) {
      await this.#finish();
      return;
    }
    const recorder = new Recorder();
    this.#recorder = recorder;
    this.#starting = true;
    try {
      await recorder.start({
        onLevel: (level, seconds) => {
          $("level").value = level;
          $("record-label").textContent = `Stop · ${seconds.toFixed(1)} s`;
        },
        onFull: () => this.#finish(),
      });
      $("record").classList.add("on");
      $("record-label").textContent = "Stop";
      $("level").hidden = false;
    } catch (error) {
      this.#recorder = null;
      this.#fail(error);
    } finally {
      this.#starting = false;
    }
  }

  async #finish() {
    const recorder = this.#recorder;
    if (!recorder) return;
    this.#recorder = null;
    $("record").classList.remove("on");
    $("record-label").textContent = "Record";
    $("level").hidden = true;
    try {
      const samples = await recorder.stop();
      this.#takes += 1;
      this.#add(clipOf(samples, { name: `Recording ${this.#takes}` }));
    } catch (error) {
      this.#fail(error);
    }
  }
}

// The list of clips: `show(clip)` and `remove(clip)` are what its buttons do.
export function drawClips(clips, inView, { show, remove }) {
  const items = clips.map((clip) => {
    const open = button(`${clip.name} · ${clip.seconds.toFixed(1)} s`, () => show(clip), "clip");
    open.setAttribute("aria-pressed", String(clip === inView));
    const away = button("×", () => remove(clip), "away");
    away.setAttribute("aria-label", `Remove ${clip.name}`);
    return make("li", "", open, away);
  });
  $("clips").replaceChildren(...items);
  $("clips").hidden = clips.length === 0;
}
