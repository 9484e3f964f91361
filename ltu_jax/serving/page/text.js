// Text of answers, as text: times in it become links, nothing else in it means anything.

// "at 12 s", "from 0:03.5", "between 2 seconds": a moment, unlike "for 12 s".
const MOMENT = new RegExp(
  String.raw`\b(at|from|after|before|until|till|around|near|between|to|and)(\s+)` +
    String.raw`(?:(\d+):([0-5]\d(?:\.\d+)?)|(\d+(?:\.\d+)?)\s*(?:s|secs?|seconds?))(?![\w:])`,
  "gi",
);

// Splits a text into strings and {text, seconds}, for moments within `longest` seconds.
export function moments(text, longest) {
  const parts = [];
  let end = 0;
  for (const found of text.matchAll(MOMENT)) {
    const [whole, word, space, minutes, rest, plain] = found;
    const seconds = plain === undefined ? 60 * Number(minutes) + Number(rest) : Number(plain);
    if (seconds > longest) continue;
    const start = found.index + word.length + space.length;
    parts.push(text.slice(end, start), { text: whole.slice(word.length + space.length), seconds });
    end = found.index + whole.length;
  }
  parts.push(text.slice(end));
  return parts.filter((part) => part !== "");
}

// "0:03.5" of seconds.
export function clock(seconds) {
  const tenths = Math.round(10 * seconds);
  const rest = ((tenths % 600) / 10).toFixed(1).padStart(4, "0");
  return `${Math.floor(tenths / 600)}:${rest}`;
}

// An element with a class and a text, or with children.
export function make(tag, className = "", ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

// A button that does something.
export function button(label, action, className = "quiet") {
  const made = make("button", className, label);
  made.type = "button";
  made.addEventListener("click", action);
  return made;
}
