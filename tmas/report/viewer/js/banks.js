// The memory banks: the changes of an iteration, and the items after it.

const CHANGES = [
  ["added", "+", "right", "new"],
  ["corrected", "~", "undecided", "its text was corrected"],
  ["confirmed", "✓", "none", "found again"],
  ["merged", "=", "none", "stated again"],
  ["echoed", "=", "none", "confirmed only by attempts that had been shown it: no new support"],
  ["contradicted", "−", "undecided", "contradicted: it lost support, and stayed"],
  ["dropped", "−", "wrong", "refuted or removed by the agent"],
  ["refused", "×", "wrong", "refuted before, and not added again"],
  ["shortened", "…", "none", "too long: its end was cut off"],
  ["evicted", "−", "wrong", "evicted: the bank was full"],
];

async function bankPanel(block, index, t, kind) {
  const round = index.iterations[t];
  const bank = round[`${kind}_bank`];
  const before = t > 0 ? index.iterations[t - 1][`${kind}_bank`] : [];
  const calls = callsOf(index, t).filter((call) => call.role === kind);
  return [
    h("h3", null, `${capital(kind)} bank after iteration ${t}: ${bank.length} items`),
    changeView(round[`${kind}_change`], before, bank),
    h("h4", null, "The bank"),
    bank.length
      ? h(
          "ul",
          { class: "items" },
          bank.map((item) => h("li", null, bankItem(item), h("div", { class: "muted small" }, history(item, index)))),
        )
      : h("p", { class: "note" }, "It is empty."),
    ...(await Promise.all(calls.map((call) => callView(block, call, false)))),
    ...failuresOf(index, t, (key) => key.role === kind),
  ];
}

function changeView(change, before, after) {
  if (!change) return h("p", { class: "note" }, "No change: its agent failed, or was not asked.");
  const lines = CHANGES.flatMap(([name, sign, kind, meaning]) =>
    (change[name] ?? []).map((id) => changeLine(id, sign, kind, meaning, before, after)),
  );
  const odd = [
    change.unknown && `${change.unknown} updates of items that the bank does not hold were ignored.`,
    change.over_limit && `${change.over_limit} new items beyond the limit were left out.`,
    change.copied && `${change.copied} new items repeated the example in the prompt and were left out.`,
    change.unknown_rollouts && `${change.unknown_rollouts} rollouts that do not exist were named and ignored.`,
    change.unreadable && `${change.unreadable} entries of the reply could not be read.`,
    change.repaired && "The JSON of the reply had to be repaired.",
  ].filter(Boolean);
  return [
    lines.length ? h("ul", { class: "items changes" }, lines) : h("p", { class: "note" }, "Nothing changed."),
    odd.map((text) => h("p", { class: "note" }, text)),
  ];
}

function changeLine(id, sign, kind, meaning, before, after) {
  const [was, is] = [before, after].map((bank) => bank.find((item) => item.item_id === id));
  const texts =
    was && is && itemText(was) !== itemText(is)
      ? [h("del", null, bankItem(was)), h("ins", null, bankItem(is))]
      : (is || was) && bankItem(is || was);
  return h(
    "li",
    null,
    chip(`${sign} ${id}`, kind),
    h("span", { class: "muted small" }, ` ${meaning}`),
    texts || h("div", { class: "muted" }, "The bank has it neither before nor after this iteration."),
  );
}

function itemText(item) {
  return item.statement ?? `${item.name}: ${item.description}`;
}

function bankItem(item) {
  const head = item.kind ? chip(`${item.item_id} ${item.kind}`, item.kind) : chip(item.item_id, "none");
  return h(
    "div",
    { class: "prose item" },
    head,
    " ",
    item.name ? [h("b", null, prose(item.name)), ": "] : null,
    prose(item.statement ?? item.description),
  );
}

function history(item, index) {
  const sources = item.rollouts.map(([t, i]) => `${t}/${i}`).join(", ");
  const from = sources && `, from ${sources} (iteration/candidate)`;
  const marks = [
    `support ${item.support}`,
    item.contradictions && `contradicted ${item.contradictions}`,
    item.echoes && `found again by ${item.echoes} attempts that had been shown it`,
    item.shortfall >= 0.05 &&
      `its attempts are ${item.shortfall.toFixed(1)} grade points in total below the means of their iterations`,
    item.refuted != null && `refuted in iteration ${item.refuted}`,
  ].filter(Boolean);
  const seen = `since iteration ${item.created}, last seen in ${item.last_seen}`;
  return `${marks.join(", ")}, ${seen}${from}${shownTo(item, index)}`;
}

/** The candidates of all iterations whose prompt showed the item. Older runs did not record them. */
function shownTo(item, index) {
  const candidates = index.iterations.flatMap((round) => round.candidates);
  const shown = candidates.filter((candidate) => candidate.shown?.includes(item.item_id));
  if (shown.length === 0) return "";
  const outcomes = Object.entries(VERDICTS)
    .map(([correct, { text }]) => [shown.filter((candidate) => candidate.correct === correct).length, text])
    .filter(([n]) => n > 0);
  const counts = outcomes.map(([n, text]) => `${n} ${text}`).join(", ");
  return `. Shown to ${shown.length} candidate${shown.length === 1 ? "" : "s"}${counts && `: ${counts}`}`;
}
