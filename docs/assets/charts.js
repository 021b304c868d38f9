// The chart of the results page as SVG: a metric against another or against cost, with the line that no row beats.
"use strict";
window.neftCharts = (() => {
  const make = (tag, attributes, ...inside) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...inside);
    return made;
  };
  const spell = (value) => Number(value.toPrecision(3)).toString().replace("-", "−");
  const told = (each) => `${each.label}${each.unit && !each.label.includes(each.unit) ? `, ${each.unit}` : ""}${each.cost ? "" : ", minus none"}`;
  // All rows are on one axis, so a row with another baseline, as at equal compute, is drawn by its difference from none.
  const drawnOf = (row, cell) => (row.baseline ? [0] : cell.from_none ?? [cell.diff, cell.low, cell.high]);

  function ticks(low, high) {
    const rough = (high - low) / 4, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
    const marks = [];
    for (let tick = Math.ceil(low / step) * step; tick <= high; tick += step) marks.push(Math.abs(tick) < step / 1e6 ? 0 : tick);
    return marks;
  }
  // The ends of a metric's axis are made with the data; costs, which have none, are drawn on a logarithm.
  function scale(column, values, from, to) {
    if (column.cost) {
      const low = Math.min(...values) / 1.15, high = Math.max(...values) * 1.15;
      const marks = [0.125, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000].filter((tick) => tick >= low && tick <= high);
      return { at: (value) => from + (Math.log(value / low) / Math.log(high / low)) * (to - from), ticks: marks, out: () => 0 };
    }
    const [low, high] = column.from_none;
    const at = (value) => from + ((Math.min(high, Math.max(low, value)) - low) / (high - low)) * (to - from);
    return { at, ticks: ticks(low, high), out: (value) => (value < low ? -1 : value > high ? 1 : 0) };
  }

  function scatter(figure, rows, across, up) {
    const KINDS = JSON.parse(document.getElementById("compare-controls").dataset.kinds);
    const value = (row, column) => { const cell = row.cells[column.key]; return column.cost ? cell?.mean : cell && drawnOf(row, cell)[0]; };
    const drawn = rows.map((row) => ({ row, x: value(row, across), y: value(row, up), cell: row.cells[up.key] })).filter(({ x, y }) => x !== undefined && y !== undefined);
    const width = figure.parentElement.clientWidth < 560 ? 360 : 760, height = 340, left = 58, right = width - 14, bottom = height - 44;
    const sides = { lower: "lower is better", higher: "higher is better" }[up.better];
    const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, class: "neft-chart", role: "group", "aria-label": `${told(up)}, against ${told(across)}; the table has the numbers` });
    figure.replaceChildren(svg);
    if (!drawn.length) return;
    const x = scale(across, drawn.map((each) => each.x), left, right), y = scale(up, [], bottom, 34);
    for (const tick of y.ticks) svg.append(make("line", { x1: left, x2: right, y1: y.at(tick), y2: y.at(tick), class: tick ? "grid" : "zero" }), make("text", { x: left - 6, y: y.at(tick) + 4, "text-anchor": "end" }, spell(tick)));
    for (const tick of x.ticks) svg.append(make("line", { x1: x.at(tick), x2: x.at(tick), y1: bottom, y2: bottom + 4, class: "axis" }), make("text", { x: x.at(tick), y: bottom + 16, "text-anchor": "middle" }, spell(tick)));
    svg.append(make("line", { x1: left, x2: right, y1: bottom, y2: bottom, class: "axis" }));
    svg.append(make("text", { x: 4, y: 12 }, told(up)), make("text", { x: 4, y: 25, class: "faint" }, sides ?? ""), make("text", { x: right, y: height - 8, "text-anchor": "end" }, told(across)));
    // Rows that nothing of at most their compute beats.
    const front = drawn.filter(({ cell }) => cell.front).sort((one, other) => one.x - other.x);
    if (across.key === "compute" && front.length > 1) svg.append(make("polyline", { points: front.map((each) => `${x.at(each.x)},${y.at(each.y)}`).join(" "), class: "front" }, make("title", {}, "no row of at most this compute is better")));
    const placed = drawn.map((each) => ({ left: x.at(each.x) - 5, right: x.at(each.x) + 5, y: y.at(each.y) - 4 }));
    const isFree = (box) => box.left > 0 && box.right < width && placed.every((each) => box.left > each.right || box.right < each.left || Math.abs(box.y - each.y) > 11);
    drawn.sort((one, other) => other.row.baseline - one.row.baseline || (other.cell.front ?? 0) - (one.cell.front ?? 0) || one.y - other.y);
    for (const each of drawn) {
      const { row, cell } = each, cx = x.at(each.x), cy = y.at(each.y), out = y.out(each.y), [, low, high] = drawnOf(row, cell);
      const kind = row.baseline ? "baseline" : (!cell.from_none && KINDS[cell.verdict]) || "neutral"; // verdicts are on the row's own baseline
      const says = `${row.name}: ${spell(each.y)}${low === undefined ? "" : ` [${spell(low)}, ${spell(high)}]`}; ${across.label} ${spell(each.x)}`;
      const inside = [make("title", {}, says)];
      if (low !== undefined && !out) inside.push(make("line", { x1: cx, x2: cx, y1: y.at(low), y2: y.at(high), class: `bar ${kind}` }));
      if (out) inside.push(make("path", { d: `M${cx - 5},${cy} h10 l-5,${-8 * out} z`, class: `dot ${kind}` }));
      else inside.push(make("circle", { cx, cy, r: 4, class: `dot ${kind}` }));
      const wide = 6.4 * row.name.length, isLeft = cx + wide + 10 > width, start = cx + (isLeft ? -7 - wide : 7), box = { left: start, right: start + wide, y: cy - 5 };
      if (isFree(box)) {
        placed.push(box);
        inside.push(make("text", { x: cx + (isLeft ? -7 : 7), y: cy - 5, "text-anchor": isLeft ? "end" : "start" }, row.name));
      }
      svg.append(row.href ? make("a", { href: row.href, "aria-label": says }, ...inside) : make("g", {}, ...inside));
    }
  }

  return { scatter };
})();
