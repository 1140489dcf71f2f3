// Creates elements. Data becomes a text node or an attribute value, and never markup.

const SVG = "http://www.w3.org/2000/svg";

/** Creates an element. Attributes that are null or false are left out. Handlers such as `onclick` are functions. */
function h(tag, attributes, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** Creates an SVG element in the same way. */
function s(tag, attributes, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}

/** A row of buttons of which one is selected. `choose(index)` is called for each selection, including the first. */
function segmented(label, names, choose, first = 0) {
  const buttons = names.map((name, index) => h("button", { type: "button", onclick: () => pick(index) }, name));
  function pick(index) {
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", i === index));
    choose(index);
  }
  pick(first);
  return h("div", { class: "segmented", role: "group", "aria-label": label }, buttons);
}

function chip(text, kind, title) {
  return h("span", { class: `chip ${kind || ""}`, title }, text);
}

const VERDICTS = {
  equal: { text: "right", mark: "✓", kind: "right" },
  different: { text: "wrong", mark: "✗", kind: "wrong" },
  undecided: { text: "undecided", mark: "?", kind: "undecided" },
};
const NO_VERDICT = { text: "not judged", mark: "·", kind: "none" };

function verdict(correct) {
  return VERDICTS[correct] || NO_VERDICT;
}

function verdictChip(correct) {
  const { mark, text, kind } = verdict(correct);
  return chip(correct in VERDICTS ? `${mark} ${text}` : text, kind);
}

function capital(word) {
  return word[0].toUpperCase() + word.slice(1);
}

// Formats numbers for readers.

function number(value, digits = 2) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}

function count(value) {
  return value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en-US");
}

function percent(value, digits = 1) {
  return value === null || value === undefined ? "–" : `${(100 * value).toFixed(digits)} %`;
}

/** Formats 12,345 as 12.3k. */
function short(value) {
  for (const [size, letter] of [
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ]) {
    if (Math.abs(value) >= size) return `${Number((value / size).toPrecision(3))}${letter}`;
  }
  return String(Number(value.toPrecision(3)));
}
