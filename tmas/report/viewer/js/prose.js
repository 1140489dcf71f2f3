// Shows model text, with mathematics through KaTeX and the common Markdown of models. Every piece becomes a text node
// or an element created here. If KaTeX rejects a formula, its source is shown.

const LONG_TEXT = 60000; // texts with more characters are first shown as source
const MAX_FORMULAS = 1500; // per text
const KATEX = { output: "html", trust: false, strict: "ignore", throwOnError: true, maxSize: 20, maxExpand: 200 };

const ENVIRONMENTS =
  "equation|align|aligned|gather|gathered|multline|cases|array|[pbvBV]?matrix|split|alignat|eqnarray";
const GROUP = String.raw`\{(?:[^{}]|\{(?:[^{}]|\{[^{}]{0,300}\}){0,300}\}){0,300}\}`;
// The lengths are bounded. Otherwise each unclosed delimiter would make the page scan to the end of the text.
const PIECES = new RegExp(
  [
    String.raw`(?<fence>^\x60{3}[^\n]{0,80}\n[\s\S]{0,9000}?\n\x60{3}[ \t]*$)`,
    String.raw`\$\$(?<dollars>[\s\S]{1,4000}?)\$\$`,
    String.raw`\\\[(?<brackets>[\s\S]{1,4000}?)\\\]`,
    String.raw`(?<environment>\\begin\{(?<name>(?:${ENVIRONMENTS})\*?)\}[\s\S]{1,4000}?\\end\{\k<name>\})`,
    String.raw`\\\((?<parens>[\s\S]{1,1500}?)\\\)`,
    String.raw`(?<![\\$\w])\$(?<dollar>[^\s$](?:[^$\n]{0,600}?[^\s$\\])?)\$(?![\d$])`,
    String.raw`(?<boxed>\\boxed\s?${GROUP})`,
    String.raw`\x60(?<code>[^\x60\n]{1,300})\x60`,
    String.raw`\*\*(?<bold>[^*\n]{1,300})\*\*`,
    String.raw`^(?<hashes>#{1,6})[ \t]+(?<heading>[^\n]{1,300})$`,
    String.raw`(?<rule>^[ \t]*(?:-{3,}|\*{3,})[ \t]*$)`,
  ].join("|"),
  "gm",
);

const BLOCKS = ["fence", "dollars", "brackets", "environment", "heading", "rule"];

/** Converts `text` to nodes. */
function prose(text, budget = { formulas: MAX_FORMULAS }) {
  const nodes = [];
  let end = 0;
  let block = false; // whether the previous piece is a block on its own lines
  for (const match of text.matchAll(PIECES)) {
    const isBlock = BLOCKS.some((name) => match.groups[name] !== undefined);
    const shown = piece(match[0], match.groups, budget);
    nodes.push(between(text.slice(end, match.index), block, isBlock), shown);
    end = match.index + match[0].length;
    end += isBlock ? withPunctuation(shown, text.slice(end, end + 8)) : 0;
    block = isBlock;
  }
  nodes.push(between(text.slice(end), block, false));
  return nodes;
}

/**
 * Appends the punctuation at the start of `after` to a formula on its own lines. Otherwise the next line would begin
 * with it. Returns the number of characters that were used.
 */
function withPunctuation(node, after) {
  const line = node.querySelector(".katex-display .katex-html");
  const found = line && /^\s{0,2}([.,;:!?])(?:[ \t]|(?=\s)|$)/.exec(after);
  if (!found) return 0;
  line.append(h("span", { class: "base" }, found[1]));
  return found[0].length;
}

/** The text between two pieces. Line breaks next to a block are removed, because a block has its own spacing. */
function between(text, afterBlock, beforeBlock) {
  const cut = afterBlock ? text.replace(/^[ \t]*\n{1,2}/, "") : text;
  return beforeBlock ? cut.replace(/\n{1,2}[ \t]*$/, "") : cut;
}

function piece(source, found, budget) {
  const display = found.dollars ?? found.brackets ?? found.environment;
  if (display !== undefined) return formula(display, source, true, budget);
  const inline = found.parens ?? found.dollar ?? found.boxed;
  if (inline !== undefined) return formula(inline, source, false, budget);
  if (found.fence !== undefined) return h("pre", { class: "fence" }, source.replace(/^[^\n]*\n|\n[^\n]*$/g, ""));
  if (found.code !== undefined) return h("code", null, found.code);
  if (found.bold !== undefined) return h("strong", null, prose(found.bold, budget));
  if (found.heading !== undefined) return h("span", { class: "heading" }, prose(found.heading, budget));
  return h("hr");
}

function formula(tex, source, displayMode, budget) {
  if (budget.formulas-- <= 0) return h("code", { class: "tex" }, source);
  const node = h("span", { class: displayMode ? "formula display" : "formula", role: "math", "aria-label": tex });
  try {
    katex.render(tex, node, { ...KATEX, displayMode });
    return node;
  } catch {
    // Models also write invalid LaTeX. The reader then sees its source, whatever error KaTeX raises.
    return h("code", { class: "tex", title: "not shown as a formula" }, source);
  }
}

/** A text with buttons that select how it is shown. `note` is shown next to the buttons. */
function textView(text, note) {
  const body = h("div", { class: "text" });
  const show = [
    () => body.replaceChildren(h("div", { class: "prose" }, prose(text))),
    () => body.replaceChildren(h("pre", { class: "source" }, text)),
  ];
  const choice = segmented(
    "How the text is shown",
    ["Rendered", "Source"],
    (i) => show[i](),
    +(text.length > LONG_TEXT),
  );
  return h(
    "div",
    { class: "textview" },
    h("div", { class: "texthead" }, choice, h("span", { class: "muted" }, note)),
    body,
  );
}
