// The pointer in a line chart: shows a guide line and a tooltip with the values at its position.

function hover(svg, chart, series, x, y, body) {
  const guide = s("line", { class: "guide", y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom, visibility: "hidden" });
  const tip = h("div", { class: "tip", hidden: true });
  const leave = () => {
    guide.setAttribute("visibility", "hidden");
    tip.hidden = true;
  };
  const move = (event) => {
    const left = event.clientX - svg.getBoundingClientRect().left;
    const nearest = (points) =>
      points.reduce((a, b) => (Math.abs(x.at(b.x) - left) < Math.abs(x.at(a.x) - left) ? b : a));
    const at = series.filter((one) => one.points.length).map((one) => [one, nearest(one.points)]);
    const place = x.at(nearest(at.map(([, point]) => point)).x);
    for (const name of ["x1", "x2"]) guide.setAttribute(name, place);
    guide.setAttribute("visibility", "visible");
    tip.replaceChildren(...at.map(([one, point]) => tipLine(chart, one, point)));
    tip.hidden = false;
    tip.style.left = `${Math.max(0, Math.min(place + 12, body.clientWidth - tip.offsetWidth))}px`;
  };
  svg.append(guide);
  svg.addEventListener("pointermove", move);
  svg.addEventListener("pointerleave", leave);
  queueMicrotask(() => body.append(tip));
}

function tipLine(chart, series, point) {
  const interval = point.low === null ? "" : ` [${shown(chart, point.low)}, ${shown(chart, point.high)}]`;
  const value = `${shown(chart, point.y)}${interval}`;
  const trend = point.trend === null ? "" : `, line ${shown(chart, point.trend)}`;
  const swatch = h("span", { class: `swatch ${colorOf(series)}` });
  return h(
    "div",
    null,
    swatch,
    series.name,
    " ",
    h("b", null, value),
    h("span", { class: "muted" }, ` at ${short(point.x)}${trend}${point.note ? `, ${point.note}` : ""}`),
  );
}
