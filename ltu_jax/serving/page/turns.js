// Questions and their answers on the page.

import { button, make, moments } from "./text.js";

// The clips that are sent for a turn, in their order: each with the first question about it.
export function clipsOf(turn) {
  return [...new Set([...turn.before, turn].flatMap(({ clips }) => clips))];
}

// Whether the server explains answers to it.
const ofOneClip = (turn) => clipsOf(turn).length === 1;

const NAMES = { joint: "sound + words", audio: "sound", text: "words" };

export class TurnsView {
  #box = document.getElementById("turns");
  #actions;

  // `actions`: seek(seconds, clip), regenerate(turn, answer), explain(turn, answer),
  // word(turn, answer, index).
  constructor(actions) {
    this.#actions = actions;
  }

  show(turns) {
    this.#box.replaceChildren(...turns.map((turn) => this.#turn(turn)));
  }

  add(turn) {
    this.#box.append(this.#turn(turn));
    turn.element.scrollIntoView({ block: "nearest" });
  }

  #turn(turn) {
    const heading = make("h3", "question", turn.question);
    const about = make("p", "about", turn.clips.map((clip) => clip.name).join(", "));
    const answers = make("div", "answers");
    turn.element = make("article", "turn", heading, about, answers);
    for (const answer of turn.answers) {
      answer.element = make("div", "answer");
      answers.append(answer.element);
      this.draw(turn, answer);
    }
    return turn.element;
  }

  // Draws an answer as it now is.
  draw(turn, answer) {
    const box = answer.element;
    if (!box) return; // of another conversation than the one in view
    box.dataset.state = answer.state;
    const parts = [];
    if (turn.answers.length > 1) parts.push(make("h4", "", NAMES[answer.mode]));
    const text = make("p", "text");
    if (answer.explanation && ofOneClip(turn)) this.#words(text, turn, answer);
    else text.append(...this.#linked(answer.text, turn));
    parts.push(text);
    if (answer.error) parts.push(make("p", "error", answer.error));
    parts.push(make("p", "facts", facts(answer)));
    if (answer.state !== "streaming") parts.push(this.#buttons(turn, answer));
    box.replaceChildren(...parts);
  }

  // Replaces the text alone, which is what changes while an answer is made.
  stream(turn, answer) {
    const text = answer.element?.querySelector(".text");
    if (!text) return;
    text.replaceChildren(...this.#linked(answer.text, turn));
  }

  #linked(text, turn) {
    const clip = turn.clips.at(-1);
    return moments(text, clip?.seconds ?? 0).map((part) => {
      if (typeof part === "string") return document.createTextNode(part);
      return button(part.text, () => this.#actions.seek(part.seconds, clip), "moment");
    });
  }

  #buttons(turn, answer) {
    const row = make("div", "row");
    const copy = button("Copy", async () => {
      await this.#actions.copy(answer.text);
      copy.textContent = "Copied";
    });
    if (answer.text) row.append(copy);
    row.append(button("Again", () => this.#actions.regenerate(turn, answer)));
    const heard = answer.tokens?.length && answer.mode !== "text";
    if (heard && ofOneClip(turn) && !answer.explanation) {
      const explain = button("What it listened to", () => this.#actions.explain(turn, answer));
      row.append(explain);
    }
    return row;
  }

  // The words of an explained answer, of which one can be chosen.
  #words(text, turn, answer) {
    text.setAttribute("role", "listbox");
    text.setAttribute("aria-label", "Words of the answer; arrows choose one");
    text.tabIndex = 0;
    const words = answer.explanation.pieces.map((piece, index) => {
      const word = make("span", "word", piece);
      word.setAttribute("role", "option");
      word.setAttribute("aria-selected", "false");
      word.addEventListener("pointerenter", () => choose(index));
      word.addEventListener("click", () => choose(index));
      word.hidden = piece === "";
      return word;
    });
    let chosen = -1;
    const choose = (index) => {
      words[chosen]?.setAttribute("aria-selected", "false");
      chosen = index;
      words[chosen]?.setAttribute("aria-selected", "true");
      this.#actions.word(turn, answer, chosen);
    };
    const seen = words.map((word, index) => [word, index]).filter(([word]) => !word.hidden);
    text.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") choose(-1);
      else if (step) {
        const place = seen.findIndex(([, index]) => index === chosen);
        const next = Math.max(0, Math.min(place + step, seen.length - 1));
        choose(seen[next][1]);
      } else return;
      event.preventDefault();
    });
    text.append(...words);
  }
}

// What is known of an answer besides its text, in one line.
function facts({ ltu, usage, state, seconds, version }) {
  const known = [];
  if (state === "streaming") known.push("answering…");
  if (state === "stopped") known.push("stopped");
  if (version > 1) known.push(`answer ${version}`);
  if (ltu?.spoken_text) known.push(`heard “${ltu.spoken_text.trim()}”`);
  if (ltu?.seconds_dropped > 0) {
    const heard = ltu.seconds - ltu.seconds_dropped;
    known.push(`heard ${heard.toFixed(1)} of ${ltu.seconds.toFixed(1)} s`);
  }
  if (ltu?.cached) known.push("clip from the cache");
  if (usage) known.push(`${usage.completion_tokens} tokens`);
  if (seconds) known.push(`${seconds.toFixed(1)} s`);
  return known.join(" · ");
}
