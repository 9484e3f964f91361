// The transcript of the clip in view: its lines seek, and follow what is played.

import { clock } from "./text.js";

const $ = (id) => document.getElementById(id);

export class TranscriptView {
  #player;
  #clip = null;
  #lines = [];

  constructor(player) {
    this.#player = player;
    player.onTime((now) => this.#follow(now));
  }

  // `clip.transcript` is {segments} or {error}, or missing while it is made.
  show(clip) {
    this.#clip = clip;
    $("transcript").hidden = !clip;
    const { segments = [], error = "" } = clip?.transcript ?? {};
    const pending = clip && !clip.transcript;
    const nothing = segments.length ? "" : "No words were heard.";
    $("transcript-state").textContent = pending ? "Listening for words…" : error || nothing;
    this.#lines = segments.map((segment) => {
      const line = document.createElement("li");
      const button = document.createElement("button");
      const time = document.createElement("time");
      const words = document.createElement("span");
      time.textContent = clock(segment.start);
      words.textContent = segment.text.trim();
      button.type = "button";
      button.setAttribute("aria-current", "false");
      button.append(time, words);
      button.addEventListener("click", () => this.#player.seek(segment.start));
      line.append(button);
      return { line, button, ...segment };
    });
    $("segments").replaceChildren(...this.#lines.map(({ line }) => line));
    this.#follow(this.#player.audio.currentTime);
  }

  get clip() {
    return this.#clip;
  }

  #follow(now) {
    for (const { button, start, end } of this.#lines) {
      const current = now >= start && now < end;
      if (current === (button.getAttribute("aria-current") === "true")) continue;
      button.setAttribute("aria-current", String(current));
      if (current && !this.#player.audio.paused) button.scrollIntoView({ block: "nearest" });
    }
  }
}
