// The candidates of a problem by iteration, with its banks below them. Each cell opens its panel.

function grid(index, address) {
  const width = Math.max(0, ...index.iterations.map((round) => round.candidates.length));
  const head = h(
    "tr",
    null,
    h("th", null, "iteration"),
    index.iterations.map((round) => h("th", null, round.iteration)),
  );
  const rows = Array.from({ length: width }, (_, i) =>
    h(
      "tr",
      null,
      h("th", null, `candidate ${i}`),
      index.iterations.map((round, t) => h("td", null, gridCell(index, round, t, i, address))),
    ),
  );
  const banks = banksOf(index).map((kind) =>
    h(
      "tr",
      null,
      h("th", null, `${kind} bank`),
      index.iterations.map((round, t) => h("td", null, bankCell(index, round, t, kind, address))),
    ),
  );
  return h(
    "section",
    { class: "card" },
    h("div", { class: "scroll" }, h("table", { class: "grid" }, h("thead", null, head), h("tbody", null, rows, banks))),
    h(
      "p",
      { class: "key muted small" },
      "A cell is a candidate with its mean grade: ",
      Object.values(VERDICTS).map(({ text, kind }) => [chip(text, kind), " "]),
      chip("no answer", "none"),
      " ",
      chip("failed", "failed"),
      " ",
      chip("explored", "explore"),
      " ",
      chip("★ selected in the end", ""),
      banks.length > 0 && " Below: items in each bank, and how many are new.",
    ),
  );
}

function gridCell(index, round, t, i, address) {
  const candidate = round.candidates[i];
  if (!candidate) return null;
  const end = index.selected && index.selected.iteration === t && index.selected.candidate === i;
  const state = candidate.failure ? "failed" : verdict(candidate.correct).kind;
  const mark = candidate.failure ? "!" : verdict(candidate.correct).mark;
  const outcome = candidate.failure || verdict(candidate.correct).text;
  const title = `candidate ${i}, ${candidate.mode}, ${outcome}, mean grade ${number(candidate.mean_grade)}`;
  return h(
    "a",
    { class: `cell ${state} ${candidate.mode}`, href: `${address}/${t}/c${i}`, "data-at": `${t}/c${i}`, title },
    h("span", null, end ? "★" : mark),
    h("span", { class: "grade" }, candidate.mean_grade === null ? "" : number(candidate.mean_grade).replace(/^0/, "")),
  );
}

/** The banks that the method keeps. */
function banksOf(index) {
  return MEMORY.filter((kind) =>
    index.iterations.some((round) => round[`${kind}_bank`].length || round[`${kind}_change`]),
  );
}

function bankCell(index, round, t, kind, address) {
  const added = round[`${kind}_change`]?.added.length;
  const failed = index.failures.some(({ call }) => call?.role === kind && call.iteration === t);
  return h(
    "a",
    {
      class: `cell bank ${failed ? "failed" : ""}`,
      href: `${address}/${t}/${kind}`,
      "data-at": `${t}/${kind}`,
      title: failed ? `the ${kind} agent failed` : `${kind} bank after iteration ${t}`,
    },
    h("span", null, round[`${kind}_bank`].length),
    h("span", { class: "grade" }, failed ? "!" : added ? `+${added}` : ""),
  );
}
