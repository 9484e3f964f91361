// What an answer listened to: weights over the clip in view, and Whisper's layers below it.

import { drawWeights } from "./spectrogram.js";
import { clock } from "./text.js";

const $ = (id) => document.getElementById(id);

export class ExplanationView {
  #player;

  constructor(player) {
    this.#player = player;
    $("hide-explanation").addEventListener("click", () => this.hide());
  }

  // Draws where token `index` of an answer lies on the clip in view; the whole answer for -1.
  show({ layers, tokens, pieces, seconds_per_token: step }, index) {
    const rows = index < 0 ? tokens : [tokens[index]];
    const mean = (place) => rows.reduce((sum, row) => sum + row[place], 0) / rows.length;
    const all = layers.map((_, place) => mean(place));
    // A short clip is followed by silence, up to the end of what the model hears.
    const { seconds } = this.#player.clip;
    const shown = Math.min(all.length, Math.ceil(seconds / step - 1e-6));
    const weights = all.slice(0, shown);
    const behind = all.slice(shown).reduce((sum, weight) => sum + weight, 0);
    // Language models rest attention on the first position of all, which here is a sound.
    const first = shown > 1 ? 1 : 0;
    const most = Math.max(...weights.slice(first));
    const at = weights.indexOf(most, first);
    this.#player.showAttention(weights, { step, most });
    const percent = (weight) => `${Math.round(100 * weight)} %`;
    const what = index < 0 ? "The whole answer" : `“${pieces[index].trim()}”`;
    const place = `${clock(at * step)} to ${clock(Math.min((at + 1) * step, seconds))}`;
    const said = [`${what}: most of all ${place}, ${percent(most)}`];
    if (first) said.push(`${percent(weights[0])} rests on the first moment`);
    if (behind >= 0.005) said.push(`${percent(behind)} on the silence behind the clip`);
    $("explained").textContent = `${said.join("; ")}.`;
    // The picture of layers stands under the seconds that it is of.
    drawWeights($("layers"), layers.slice(0, shown));
    $("layers").style.width = `${Math.min(100, (100 * shown * step) / seconds)}%`;
    $("explanation").hidden = false;
  }

  hide() {
    $("explanation").hidden = true;
    this.#player.hideAttention();
  }
}
