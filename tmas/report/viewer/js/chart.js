// SVG charts that fill the available width and are redrawn when it changes. tmas/report/items.py defines their data.

const MARGIN = { top: 10, right: 14, bottom: 42, left: 62 };
const HEIGHT = 320;
const PALETTE = 8; // colors in report.css

function colorOf(series) {
  return `c${series.color % PALETTE}`;
}

function chartView(chart) {
  const hidden = new Set();
  const body = h("div", { class: "plot" });
  const redraw = () => body.clientWidth && draw(chart, body, hidden);
  new ResizeObserver(redraw).observe(body);
  return h("figure", { class: "chart" }, h("figcaption", null, chart.title), legend(chart, hidden, redraw), body);
}

function draw(chart, body, hidden) {
  body.replaceChildren(chart.kind === "bars" ? bars(chart, body, hidden) : lines(chart, body, hidden));
}

function legend(chart, hidden, redraw) {
  if (chart.series.length < 2) return null;
  const entry = (series) => {
    const toggle = (event) => {
      if (!hidden.delete(series)) hidden.add(series);
      event.currentTarget.setAttribute("aria-pressed", !hidden.has(series));
      redraw();
    };
    const swatch = h("span", { class: `swatch ${colorOf(series)}` });
    return h("button", { type: "button", class: "entry", "aria-pressed": "true", onclick: toggle }, swatch, series.name);
  };
  return h("div", { class: "legend" }, chart.series.map(entry));
}

// --- lines

function lines(chart, body, hidden) {
  const series = chart.series.filter((one) => !hidden.has(one));
  const points = series.flatMap((one) => one.points);
  const width = body.clientWidth;
  const x = scale(
    points.map((p) => p.x),
    MARGIN.left,
    width - MARGIN.right,
    chart.log_x,
    chart.x_range,
  );
  const heights = points.flatMap((p) => [p.y, p.low ?? p.y, p.high ?? p.y]);
  const y = scale([...heights, 0], HEIGHT - MARGIN.bottom, MARGIN.top, false, chart.y_range);
  const svg = s("svg", { width, height: HEIGHT, role: "img", "aria-label": chart.title });
  svg.append(axes(chart, x, y, width));
  if (chart.diagonal) {
    svg.append(s("line", { class: "diagonal", x1: x.at(0), y1: y.at(0), x2: x.at(1), y2: y.at(1) }));
  }
  svg.append(...series.map((one) => s("g", { class: `series ${colorOf(one)}` }, band(one, x, y), curve(one, x, y))));
  if (points.length) hover(svg, chart, series, x, y, body);
  return svg;
}

function band({ points }, x, y) {
  const known = points.filter((p) => p.low !== null && p.high !== null);
  if (known.length === 1) {
    const [{ x: at, low, high }] = known;
    return s("line", { class: "whisker", x1: x.at(at), x2: x.at(at), y1: y.at(low), y2: y.at(high) });
  }
  const edge = [...known.map((p) => [p.x, p.high]), ...known.reverse().map((p) => [p.x, p.low])];
  return edge.length ? s("path", { class: "band", d: `${path(edge, x, y)}Z` }) : null;
}

/** The line and its points. All points are one path, because one element per point would be too many. */
function curve({ points }, x, y) {
  const line = points.map((p) => [p.x, p.trend ?? p.y]);
  const dots = points.map((p) => `${path([[p.x, p.y]], x, y)}h0`).join("");
  const faint = points.some((p) => p.trend !== null) ? "faint" : "";
  return [
    s("path", { class: `dots ${faint}`, d: dots, "stroke-width": points.length > 60 ? 2.4 : 5.2 }),
    s("path", { class: "line", d: path(line, x, y) }),
  ];
}

function path(pairs, x, y) {
  return pairs.map(([px, py], i) => `${i ? "L" : "M"}${x.at(px).toFixed(1)} ${y.at(py).toFixed(1)}`).join("");
}

function axes(chart, x, y, width) {
  const bottom = HEIGHT - MARGIN.bottom;
  const grid = y.ticks.map((tick) => [
    s("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y.at(tick), y2: y.at(tick) }),
    s("text", { class: "tick", x: MARGIN.left - 8, y: y.at(tick) + 4, "text-anchor": "end" }, shown(chart, tick)),
  ]);
  const ticks = x.ticks.map((tick) => [
    s("line", { class: "grid", x1: x.at(tick), x2: x.at(tick), y1: bottom, y2: bottom + 5 }),
    s("text", { class: "tick", x: x.at(tick), y: bottom + 18, "text-anchor": "middle" }, short(tick)),
  ]);
  const middle = (MARGIN.left + width - MARGIN.right) / 2;
  const turned = `translate(13 ${(MARGIN.top + bottom) / 2}) rotate(-90)`;
  return s(
    "g",
    null,
    grid,
    ticks,
    s("text", { class: "label", x: middle, y: HEIGHT - 6, "text-anchor": "middle" }, chart.x_label),
    s("text", { class: "label", transform: turned, "text-anchor": "middle" }, chart.y_label),
  );
}

function shown(chart, value) {
  return chart.percent ? `${Number((100 * value).toFixed(1))} %` : short(value);
}

// --- bars: rows of stacked parts

function bars(chart, body, hidden) {
  const series = chart.series.filter((one) => !hidden.has(one));
  const row = 30;
  const longest = Math.max(...chart.rows.map((name) => name.length));
  const left = Math.min(Math.max(180, 7 * longest), body.clientWidth / 3);
  const totals = chart.rows.map((_, i) => series.reduce((sum, one) => sum + one.values[i], 0));
  const height = chart.rows.length * row + 44;
  const x = scale([0, ...totals], left, body.clientWidth - 60, false, null);
  const svg = s("svg", { width: body.clientWidth, height, role: "img", "aria-label": chart.title });
  chart.rows.forEach((name, i) => {
    let from = 0;
    const parts = series.map((one) => {
      const start = x.at(from);
      from += one.values[i];
      const label = `${one.name}: ${short(one.values[i])} (${percent(one.values[i] / totals[i])})`;
      return s(
        "rect",
        { class: colorOf(one), x: start, y: i * row + 5, width: x.at(from) - start, height: row - 10 },
        s("title", null, label),
      );
    });
    const middle = i * row + row / 2 + 4;
    svg.append(
      s(
        "g",
        null,
        s("text", { class: "tick", x: left - 8, y: middle, "text-anchor": "end" }, cut(name, left / 7)),
        parts,
        s("text", { class: "tick", x: x.at(from) + 6, y: middle }, short(totals[i])),
      ),
    );
  });
  svg.append(s("text", { class: "label", x: left, y: height - 12 }, chart.x_label));
  return svg;
}

/** Shortens a text in its middle: names of runs differ at their ends, too. */
function cut(text, length) {
  const kept = Math.max(1, Math.floor((length - 1) / 2));
  return text.length > length ? `${text.slice(0, kept)}…${text.slice(-kept)}` : text;
}
