// The memory banks: the changes of an iteration, and the items after it.

const CHANGES = [
  ["added", "+", "right", "new"],
  ["corrected", "~", "undecided", "its text was corrected"],
  ["confirmed", "✓", "none", "found again"],
  ["merged", "=", "none", "took in a near-duplicate"],
  ["dropped", "−", "wrong", "dropped by the agent"],
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
          bank.map((item) => h("li", null, bankItem(item), h("div", { class: "muted small" }, history(item)))),
        )
      : h("p", { class: "note" }, "It is empty."),
    ...(await Promise.all(calls.map((call) => callView(block, call, false)))),
    ...failuresOf(index, t, (key) => key.role === kind),
  ];
}

function changeView(change, before, after) {
  if (!change) return h("p", { class: "note" }, "No change: its agent failed, or was not asked.");
  const lines = CHANGES.flatMap(([name, sign, kind, meaning]) =>
    change[name].map((id) => changeLine(id, sign, kind, meaning, before, after)),
  );
  const odd = [
    change.unknown && `${change.unknown} updates of items that the bank does not hold were ignored.`,
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
    texts || h("div", { class: "muted" }, "It stands in neither bank."),
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

function history(item) {
  const sources = item.rollouts.map(([t, i]) => `${t}/${i}`).join(", ");
  const from = sources && `, from ${sources} (iteration/candidate)`;
  return `support ${item.support}, since iteration ${item.created}, last seen in ${item.last_seen}${from}`;
}
