// The clip in view: waveform, spectrogram, cursor, and what an answer listened to on top.

import { peaks } from "./audio.js";
import { drawSpectrogram, logMel } from "./spectrogram.js";
import WaveSurfer from "./vendor/wavesurfer.esm.js";

export const WAVE_HEIGHT = 72; // the policy of inline styles knows the style sheet of this height
const $ = (id) => document.getElementById(id);

export class Player {
  #wave = null;
  #clip = null;
  #frame = 0;
  #listeners = [];

  constructor() {
    this.audio = $("audio");
    this.stage = $("stage");
    for (const event of ["play", "pause", "ended"]) {
      this.audio.addEventListener(event, () => this.#playing());
    }
    this.audio.addEventListener("seeked", () => this.#moved());
    this.stage.addEventListener("keydown", (event) => this.#pressed(event));
    this.stage.addEventListener("pointerdown", (event) => {
      if (!this.#clip || event.button) return;
      this.stage.setPointerCapture(event.pointerId);
      this.#point(event);
    });
    this.stage.addEventListener("pointermove", (event) => {
      if (this.stage.hasPointerCapture(event.pointerId)) this.#point(event);
    });
    $("play").addEventListener("click", () => this.toggle());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.recolour());
  }

  // `listener(seconds)` hears of every move of the cursor.
  onTime(listener) {
    this.#listeners.push(listener);
  }

  get clip() {
    return this.#clip;
  }

  // Shows a clip, or nothing.
  show(clip) {
    if (clip === this.#clip) return;
    this.audio.pause();
    this.#clip = clip;
    this.hideAttention();
    this.hear(clip?.heard ?? null);
    $("player").hidden = !clip;
    this.#wave?.destroy();
    this.#wave = null;
    if (!clip) {
      this.audio.removeAttribute("src");
      this.audio.load();
      return;
    }
    this.audio.src = clip.url;
    this.#wave = WaveSurfer.create({
      container: $("wave"),
      height: WAVE_HEIGHT,
      peaks: [peaks(clip.samples, 1200)],
      duration: clip.seconds,
      interact: false,
      cursorWidth: 0,
      barWidth: 2,
      barGap: 1,
      barRadius: 1,
      normalize: true,
      hideScrollbar: true,
    });
    this.recolour();
    clip.mel ??= logMel(clip.samples);
    drawSpectrogram($("spectrogram"), clip.mel);
    this.stage.setAttribute("aria-label", `Position in ${clip.name}`);
    this.stage.setAttribute("aria-valuemax", clip.seconds.toFixed(2));
    this.#moved();
  }

  recolour() {
    // A canvas takes no variables of a style sheet: the colours are those of two elements.
    this.#wave?.setOptions({
      waveColor: getComputedStyle($("clock")).color,
      progressColor: getComputedStyle($("cursor")).color,
    });
  }

  seek(seconds) {
    if (!this.#clip) return;
    this.audio.currentTime = Math.max(0, Math.min(seconds, this.#clip.seconds));
    this.#moved();
  }

  toggle() {
    if (!this.#clip) return;
    if (this.audio.paused) this.audio.play().catch(() => {});
    else this.audio.pause();
  }

  // Marks what lies behind the seconds that the model hears; null marks nothing.
  hear(seconds) {
    const all = this.#clip?.seconds ?? 0;
    $("unheard").hidden = seconds === null || seconds >= all - 0.005;
    if (seconds !== null) $("unheard").style.left = `${(100 * seconds) / all}%`;
  }

  // Draws weights of stretches of `step` seconds over the spectrogram; `most` stays clear.
  showAttention(weights, { step, most }) {
    const overlay = $("attention");
    const columns = weights.map((weight, i) => {
      const column = document.createElement("i");
      column.style.left = `${(100 * i * step) / this.#clip.seconds}%`;
      column.style.width = `${(100 * step) / this.#clip.seconds}%`;
      column.style.setProperty("--shade", (0.85 * Math.max(0, 1 - weight / most)).toFixed(4));
      column.dataset.weight = weight;
      return column;
    });
    overlay.replaceChildren(...columns);
    overlay.hidden = false;
  }

  hideAttention() {
    $("attention").hidden = true;
  }

  #point(event) {
    const box = this.stage.getBoundingClientRect();
    this.seek(((event.clientX - box.left) / box.width) * this.#clip.seconds);
  }

  #pressed(event) {
    const now = this.audio.currentTime;
    const end = this.#clip?.seconds ?? 0;
    const goals = {
      ArrowLeft: now - 0.5,
      ArrowDown: now - 0.5,
      ArrowRight: now + 0.5,
      ArrowUp: now + 0.5,
      PageUp: now + 5,
      PageDown: now - 5,
      Home: 0,
      End: end,
    };
    if (event.key in goals) this.seek(goals[event.key]);
    else if (event.key === " ") this.toggle();
    else return;
    event.preventDefault();
  }

  #playing() {
    const playing = !this.audio.paused;
    $("play").textContent = playing ? "❚❚" : "▶";
    $("play").setAttribute("aria-label", playing ? "Pause" : "Play");
    cancelAnimationFrame(this.#frame);
    const follow = () => {
      this.#moved();
      if (!this.audio.paused) this.#frame = requestAnimationFrame(follow);
    };
    follow();
  }

  #moved() {
    if (!this.#clip) return;
    const all = this.#clip.seconds;
    const now = Math.min(this.audio.currentTime, all);
    $("cursor").style.left = `${(100 * now) / all}%`;
    $("clock").textContent = `${now.toFixed(1)} / ${all.toFixed(1)} s`;
    this.stage.setAttribute("aria-valuenow", now.toFixed(2));
    this.stage.setAttribute("aria-valuetext", `${now.toFixed(1)} seconds`);
    this.#wave?.setTime(now);
    for (const listener of this.#listeners) listener(now);
  }
}
