// One problem: its question and answer, its candidates by iteration, and a panel for the selected cell.

const PANELS = { experience: bankPanel, guideline: bankPanel, calls: callsPanel };
const current = { address: null, grid: null, panel: null };

/** Shows problem `number` of `run`. `iteration` and `panel` come from the address, which may omit them. */
async function showProblem(target, run, number, iteration, panel) {
  const asked = location.hash; // if the reader navigates during loading, only the last address is shown
  const problem = DATA.runs[run].problems[number];
  const block = await blockOf(problem.block);
  const index = await block.index();
  if (location.hash !== asked) return;
  const address = `#problems/${run}/${number}`;
  if (current.address !== address || !target.contains(current.panel)) {
    current.address = address;
    current.panel = h("section", { class: "card panel" });
    current.grid = grid(index, address);
    target.replaceChildren(problemHead(problem, index, run), current.grid, current.panel);
  }
  const [t, chosen] = placeOf(index, iteration, panel);
  if (!index.iterations[t]) return;
  current.grid.querySelectorAll("[aria-current]").forEach((node) => node.removeAttribute("aria-current"));
  current.grid.querySelector(`[data-at="${t}/${chosen}"]`)?.setAttribute("aria-current", "true");
  const shown =
    chosen.startsWith("c") && chosen !== "calls"
      ? await candidatePanel(block, index, t, Number(chosen.slice(1)))
      : await PANELS[chosen](block, index, t, chosen);
  if (location.hash === asked) {
    current.panel.replaceChildren(panelTabs(index, address, t, chosen), h("div", null, shown));
  }
}

/** The iteration and panel in the address. They default to those of the selected answer. */
function placeOf(index, iteration, panel) {
  const selected = index.selected || { iteration: 0, candidate: 0 };
  const t = index.iterations[iteration] ? Number(iteration) : selected.iteration;
  const known = /^c\d+$/.test(panel) || Object.hasOwn(PANELS, panel);
  return [t, known ? panel : `c${t === selected.iteration ? selected.candidate : 0}`];
}

function problemHead(problem, index, run) {
  const chosen = index.selected;
  const place = chosen && `iteration ${chosen.iteration}, candidate ${chosen.candidate}`;
  const from = chosen && `${place}, mean grade ${number(chosen.mean_grade)}, ${chosen.votes} votes`;
  return h(
    "section",
    { class: "card" },
    h("p", { class: "crumbs" }, h("a", { href: "#problems" }, "Problems"), ` / ${DATA.runs[run].name}`),
    h("h2", null, problem.problem_id, " ", verdictChip(index.correct)),
    index.question ? h("div", { class: "question prose" }, prose(index.question)) : null,
    h(
      "dl",
      { class: "facts" },
      fact("Selected answer", index.answer === null ? "none" : answerView(index.answer)),
      fact("Gold answer", index.gold === null ? "none" : answerView(index.gold)),
      fact("From", from || "no candidate"),
      fact("Stopped", STOPS[index.stop]),
      fact("Tokens", short(problem.tokens)),
      fact("Failures", failureCounts(index.failures)),
    ),
    problem.left_out ? leftOut(run, problem) : null,
  );
}

function fact(name, value) {
  return h("div", null, h("dt", null, name), h("dd", null, value));
}

function answerView(answer) {
  return h(
    "span",
    { class: "answer" },
    /[\\^_]/.test(answer) ? formula(answer.replace(/^\$+|\$+$/g, ""), answer, false, { formulas: 1 }) : answer,
  );
}

function failureCounts(failures) {
  const counts = new Map();
  for (const { reason } of failures) counts.set(reason, (counts.get(reason) || 0) + 1);
  return [...counts].map(([reason, n]) => `${n} ${reason}`).join(", ") || "none";
}

function leftOut(run, problem) {
  const plain = /^[\w.-]+$/.test(problem.problem_id);
  const id = plain ? problem.problem_id : `'${problem.problem_id.replace(/['\\]/g, "\\$&")}'`; // quoted for Hydra
  return h(
    "p",
    { class: "note" },
    `${count(problem.left_out)} characters of prompts, replies and reasoning are not in this file. `,
    "All of them: ",
    h("code", null, `tmas report runs=[${DATA.runs[run].path}] problems=[${id}] max_mb=1000 output=problem.html`),
  );
}

function panelTabs(index, address, t, chosen) {
  const round = index.iterations[t];
  const panels = [
    ...round.candidates.map((_, i) => [`c${i}`, `${i}`]),
    ...banksOf(index).map((kind) => [kind, `${capital(kind)} bank`]),
    ["calls", "All calls"],
  ];
  const step = (to, sign) =>
    h("a", { class: "step", href: index.iterations[to] ? `${address}/${to}/${chosen}` : null }, sign);
  return h(
    "nav",
    { class: "paneltabs" },
    step(t - 1, "‹"),
    h("b", null, `Iteration ${t}`),
    step(t + 1, "›"),
    h("span", { class: "muted" }, "candidate"),
    panels.map(([key, name]) =>
      h("a", { href: `${address}/${t}/${key}`, "aria-current": key === chosen ? "page" : null }, name),
    ),
  );
}
