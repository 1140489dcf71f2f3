// The list of problems with filters, sorting, and the accuracy of each problem over the iterations.

const COLUMNS = [
  { name: "Problem", key: (p) => p.problem_id },
  { name: "Selected answer", key: (p) => ["equal", "undecided", "different", null].indexOf(p.correct) },
  { name: "Right candidates by iteration", key: (p) => -mean(p.strip.filter((share) => share !== null)) },
  { name: "Iterations", right: true, key: (p) => -p.iterations },
  { name: "Tokens", right: true, key: (p) => -p.tokens },
  { name: "Failures", right: true, key: (p) => -p.failures },
];
const OUTCOMES = [
  ["all", "All"],
  ["equal", "Right"],
  ["different", "Wrong"],
  ["undecided", "Undecided"],
  ["none", "Not judged"],
];

const listState = { run: 0, outcome: "all", words: "", sort: 0, descending: false };

function mean(values) {
  return values.length ? values.reduce((a, b) => a + b, 0) / values.length : -1;
}

function problemList() {
  const rows = h("tbody");
  const found = h("span", { class: "muted" });
  const head = h(
    "tr",
    null,
    COLUMNS.map(({ name, right }, i) =>
      h("th", { class: right && "right-aligned" }, h("button", { class: "sort", onclick: () => sortBy(i) }, name)),
    ),
  );
  const change = (values) => {
    Object.assign(listState, values);
    fill(rows, found, head);
  };
  const sortBy = (i) => change({ sort: i, descending: listState.sort === i && !listState.descending });
  const runs = h(
    "select",
    { "aria-label": "Run", onchange: (e) => change({ run: Number(e.target.value) }) },
    DATA.runs.map((run, i) => h("option", { value: i, selected: i === listState.run }, run.name)),
  );
  const words = h("input", {
    type: "search",
    placeholder: "id or words of the question",
    value: listState.words,
    "aria-label": "Search",
    oninput: (e) => change({ words: e.target.value }),
  });
  const outcome = segmented(
    "Outcome",
    OUTCOMES.map(([, name]) => name),
    (i) => change({ outcome: OUTCOMES[i][0] }),
    OUTCOMES.findIndex(([key]) => key === listState.outcome),
  );
  return h(
    "section",
    { class: "card" },
    h("div", { class: "filters" }, DATA.runs.length > 1 && runs, words, outcome, found),
    h("div", { class: "scroll" }, h("table", { class: "problems" }, h("thead", null, head), rows)),
  );
}

function fill(rows, found, head) {
  const { run, outcome, words, sort, descending } = listState;
  const all = DATA.runs[run].problems;
  const wanted = words.toLowerCase();
  const shown = all.filter(
    (p) =>
      (outcome === "all" || (p.correct ?? "none") === outcome) &&
      `${p.problem_id}\n${p.question ?? ""}`.toLowerCase().includes(wanted),
  );
  const key = COLUMNS[sort].key;
  const order = (a, b) =>
    typeof key(a) === "string" ? key(a).localeCompare(key(b), "en", { numeric: true }) : key(a) - key(b);
  shown.sort((a, b) => (descending ? -order(a, b) : order(a, b)));
  rows.replaceChildren(...shown.map((p) => problemRow(run, p)));
  found.textContent = `${shown.length} of ${all.length}`;
  [...head.children].forEach((th, i) => {
    if (i === sort) th.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else th.removeAttribute("aria-sort");
  });
}

function problemRow(run, problem) {
  const title = problem.block
    ? h("a", { href: `#problems/${run}/${problem.number}` }, problem.problem_id)
    : problem.problem_id;
  return h(
    "tr",
    { class: problem.block ? "link" : null },
    h("td", null, h("div", null, title), h("div", { class: "muted small clip" }, problem.question)),
    h(
      "td",
      null,
      verdictChip(problem.correct),
      " ",
      h("span", { class: "answer clip" }, problem.answer ?? "no answer"),
      h("div", { class: "muted small clip" }, problem.gold === null ? "no gold answer" : `gold ${problem.gold}`),
    ),
    h("td", null, strip(problem.strip, problem.strip_upper ?? problem.strip)),
    h("td", { class: "right-aligned" }, problem.iterations, h("div", { class: "muted small" }, STOPS[problem.stop])),
    h("td", { class: "right-aligned" }, short(problem.tokens)),
    h("td", { class: "right-aligned" }, problem.failures),
  );
}

const STOPS = { max_iterations: "all done", early_stop: "early stop", budget: "budget", worker: "workers died" };

/** The share of correct candidates, with one cell per iteration. `uppers`: with undecided candidates as correct. */
function strip(shares, uppers) {
  const bar = (kind, share, i) =>
    share === null ? null : s("rect", { class: kind, x: i * 9, y: 20 - 20 * share, width: 8, height: 20 * share });
  const cell = (share, i) => {
    const most = uppers[i] > share ? `, ${percent(uppers[i], 0)} if all undecided answers are right` : "";
    const title = s("title", null, `iteration ${i}: ${share === null ? "not judged" : percent(share, 0)}${most}`);
    const ground = s("rect", { class: "ground", x: i * 9, y: 0, width: 8, height: 20 });
    return s("g", null, ground, bar("undecided", uppers[i], i), bar("share", share, i), title);
  };
  return s("svg", { width: Math.max(1, shares.length * 9), height: 20, class: "strip" }, shares.map(cell));
}
