// The items of a section. tmas/report/items.py defines the data of each.

const ITEMS = {
  tiles: (item) => h("div", { class: "tiles" }, item.tiles.map(tile)),
  line: chartView,
  bars: chartView,
  table: tableView,
  stack: (item) => h("div", { class: "stack" }, item.items.map(itemView)),
  row: (item) => h("div", { class: "row" }, item.items.map(itemView)),
  choice: choiceView,
  note: (item) => h("p", { class: "note" }, item.text),
};

function itemView(item) {
  return ITEMS[item.kind](item);
}

function tile({ label, value, note }) {
  return h(
    "div",
    { class: "tile" },
    h("div", { class: "muted" }, label),
    h("div", { class: "value" }, value),
    h("div", { class: "muted small" }, note),
  );
}

/** Several items of which one is shown. The reader selects it by name. */
function choiceView(item) {
  const body = h("div");
  const names = item.options.map((option) => option.name);
  const choice = segmented(item.label, names, (i) => body.replaceChildren(itemView(item.options[i].item)));
  return h(
    "div",
    { class: "choice" },
    h("div", { class: "texthead" }, h("span", { class: "muted" }, item.label), choice),
    body,
  );
}

function tableView(item) {
  const align = (i) => (i < item.text_columns ? "" : "right-aligned");
  const cell = (tag) => (value, i) => h(tag, { class: align(i) }, cellContent(value));
  const head = h(
    "thead",
    null,
    item.groups.length > 0 &&
      h(
        "tr",
        null,
        item.groups.map(({ name, span }) => h("th", { colspan: span, class: "group" }, name)),
      ),
    h("tr", null, item.columns.map(cell("th"))),
  );
  const row = (values) =>
    values.length === 1
      ? h("tr", { class: "band" }, h("th", { colspan: item.columns.length }, values[0]))
      : h("tr", null, values.map(cell("td")));
  return h(
    "figure",
    { class: "table" },
    h("figcaption", null, item.title),
    h("div", { class: "scroll" }, h("table", null, head, h("tbody", null, item.rows.map(row)))),
    item.note && h("p", { class: "note" }, item.note),
  );
}

function cellContent(value) {
  if (typeof value === "string") return value;
  if (value.kind === "prose") return h("span", { class: "prose" }, prose(value.text));
  return [
    h("span", { class: value.strong ? "strong" : null }, value.text),
    h("span", { class: "interval" }, value.note),
  ];
}
