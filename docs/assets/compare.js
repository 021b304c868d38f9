// The results page: sorting, filtering and charts. All numbers are read from the tables, which stand without this.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const controls = document.getElementById("compare-controls");
  if (!controls) return;
  const get = (name) => document.getElementById(`compare-${name}`);
  const sections = [...document.querySelectorAll("section.experiment")];
  const table = () => sections.find((each) => !each.hidden).querySelector("table.results");
  const columns = () => [...table().tHead.rows[0].cells];
  const rows = () => [...table().tBodies[0].rows];
  const visible = () => rows().filter((row) => !row.hidden);
  const number = (cell, key) => (cell.dataset[key] === undefined ? NaN : Number(cell.dataset[key]));

  const seen = new Set();

  // Metrics that can be drawn: those with a difference, and compute.
  const drawable = () =>
    columns()
      .map((head, place) => ({ key: head.dataset.key, label: head.dataset.label || head.dataset.key, unit: head.dataset.unit || "", better: head.dataset.better, place }))
      .filter((each) => each.key.includes(".") || each.key === "compute");

  function show(key) {
    for (const each of sections) {
      each.hidden = each.id !== key;
      const still = each.querySelector(".still");
      if (still) still.hidden = true; // the chart above takes its place
    }
    fill(get("metric"), "test_loss.end");
    fill(get("against"), "compute");
    const box = get("columns");
    box.querySelectorAll("label").forEach((label) => label.remove());
    columns().forEach((head, place) => {
      if (!place) return;
      const hide = (hidden) => [...table().rows].forEach((row) => (row.cells[place].hidden = hidden));
      if ("more" in head.dataset && !seen.has(key)) hide(true);
      const label = document.createElement("label");
      const input = Object.assign(document.createElement("input"), { type: "checkbox", checked: !head.hidden });
      input.addEventListener("change", () => hide(!input.checked));
      label.append(input, ` ${head.dataset.label || head.dataset.key}`);
      box.append(label);
    });
    seen.add(key); // what a reader chose stays
    filter();
  }

  function fill(select, first) {
    const before = select.value || first;
    select.replaceChildren(
      ...drawable().map((each) => new Option(each.label + (each.unit && !each.label.includes(each.unit) ? ` (${each.unit})` : ""), each.key)),
    );
    const keys = [...select.options].map((option) => option.value);
    select.value = keys.includes(before) ? before : keys.includes(first) ? first : keys[0];
  }

  function filter() {
    const words = get("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const families = [...controls.querySelectorAll("[name=family]:checked")].map((box) => box.value);
    for (const row of rows()) {
      const name = row.cells[0].textContent.toLowerCase();
      const wanted = words.every((word) => name.includes(word)) && families.includes(row.dataset.family);
      row.hidden = !(wanted || "baseline" in row.dataset);
    }
    const count = get("count");
    count.hidden = false;
    count.textContent = `${visible().length} of ${rows().length} rows; the baseline is always shown.`;
    draw();
  }

  function sort(head) {
    const place = head.cellIndex;
    const down = head.getAttribute("aria-sort") === "ascending";
    columns().forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const order = rows().sort((one, other) => {
      if ("baseline" in one.dataset) return -1;
      if ("baseline" in other.dataset) return 1;
      if (!place) return one.cells[0].textContent.localeCompare(other.cells[0].textContent) * (down ? -1 : 1);
      const [a, b] = [number(one.cells[place], "value"), number(other.cells[place], "value")];
      if (isNaN(a) || isNaN(b)) return isNaN(a) - isNaN(b); // what was not measured stays last
      return (a - b) * (down ? -1 : 1);
    });
    table().tBodies[0].append(...order);
    draw();
  }

  function points(key) {
    const { place } = drawable().find((each) => each.key === key);
    return visible().map((row) => {
      const cell = row.cells[place];
      const link = row.cells[0].querySelector("a");
      const name = (link || row.cells[0].firstChild).textContent.trim();
      const [mean, low, high] = ["diff", "low", "high"].map((each) => number(cell, each));
      return { name, href: link && link.href, mean, low, high, baseline: "baseline" in row.dataset };
    });
  }

  function draw() {
    const y = drawable().find((each) => each.key === get("metric").value);
    const x = drawable().find((each) => each.key === get("against").value);
    get("charts").hidden = false;
    forest(get("forest"), points(y.key), y);
    scatter(get("scatter"), points(x.key), points(y.key), x, y);
  }

  const make = (tag, attributes, ...inside) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...inside);
    return made;
  };
  const title = (text) => make("title", {}, text);
  const told = (each) => each.key === "compute" ? "compute, relative to none" : `${each.label}${each.unit ? ` in ${each.unit}` : ""}, less none`;
  const spell = (value) => Number(value.toPrecision(3)).toString().replace("-", "−");
  const sentence = (point) => `${point.name}: ${spell(point.mean)}` + (isNaN(point.low) ? "" : ` [${spell(point.low)}, ${spell(point.high)}]`);

  // A linear scale with about five round ticks; for costs by the pass a logarithmic one.
  function scale(points, from, to, logarithmic = false) {
    const values = points.flatMap((each) => [each.mean, each.low, each.high]).filter((value) => !isNaN(value));
    let low = Math.min(...values), high = Math.max(...values);
    if (!(high > low)) [low, high] = [low - 1, high + 1];
    if (logarithmic && low > 0) {
      [low, high] = [low / 1.15, high * 1.15];
      const ticks = [0.25, 0.5, 1, 2, 3, 5, 10, 20, 50].filter((tick) => tick >= low && tick <= high);
      return { at: (value) => from + (Math.log(value / low) / Math.log(high / low)) * (to - from), ticks };
    }
    const room = (high - low) * 0.06;
    [low, high] = [low - room, high + room];
    const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
    const ticks = [];
    for (let tick = Math.ceil(low / step) * step; tick <= high; tick += step) ticks.push(Math.abs(tick) < step / 1e6 ? 0 : tick);
    return { at: (value) => from + ((value - low) / (high - low)) * (to - from), ticks };
  }

  // A narrow screen gets a narrower drawing, so that its letters stay readable.
  const width = () => (get("charts").clientWidth < 500 ? 380 : 520);

  function frame(figure, height, label) {
    const svg = make("svg", { viewBox: `0 0 ${width()} ${height}`, class: "neft-chart", role: "group", "aria-label": label });
    figure.replaceChildren(svg);
    return svg;
  }

  function axis(svg, scale, bottom, label) {
    for (const tick of scale.ticks) {
      svg.append(make("line", { x1: scale.at(tick), x2: scale.at(tick), y1: bottom, y2: bottom + 4, class: "axis" }));
      svg.append(make("text", { x: scale.at(tick), y: bottom + 16, "text-anchor": "middle" }, spell(tick)));
    }
    svg.append(make("text", { x: width() - 10, y: bottom + 32, "text-anchor": "end" }, label));
  }

  const linked = (point, ...inside) => (point.href ? make("a", { href: point.href, "aria-label": sentence(point) }, ...inside) : make("g", {}, ...inside));

  function forest(figure, found, metric) {
    // The baseline first, then from the best on; where no direction is good, from the lowest.
    const direction = metric.better === "higher" ? -1 : 1;
    const drawn = found.filter((point) => !isNaN(point.mean));
    drawn.sort((one, other) => other.baseline - one.baseline || (one.mean - other.mean) * direction);
    const height = 20 * drawn.length + 50, bottom = height - 40;
    const svg = frame(figure, height, `${told(metric)}, with 95 % intervals; the table has the numbers`);
    const names = Math.min(205, width() * 0.42);
    const x = scale(drawn, names + 10, width() - 15);
    const none = drawn.find((point) => point.baseline);
    if (none) svg.append(make("line", { x1: x.at(none.mean), x2: x.at(none.mean), y1: 4, y2: bottom, class: "zero" }));
    drawn.forEach((point, place) => {
      const y = 14 + 20 * place;
      const fitting = Math.floor(names / 6.2);
      const shown = point.name.length > fitting ? `${point.name.slice(0, fitting - 1)}…` : point.name;
      const inside = [title(sentence(point)), make("text", { x: names, y: y + 4, "text-anchor": "end" }, shown)];
      if (!isNaN(point.low)) inside.push(make("line", { x1: x.at(point.low), x2: x.at(point.high), y1: y, y2: y, class: "bar" }));
      inside.push(make("circle", { cx: x.at(point.mean), cy: y, r: 4, class: point.baseline ? "baseline" : "" }));
      svg.append(linked(point, ...inside));
    });
    axis(svg, x, bottom, told(metric));
  }

  function scatter(figure, across, up, xMetric, yMetric) {
    const drawn = across.map((point, place) => [point, up[place]]).filter(([a, b]) => !isNaN(a.mean) && !isNaN(b.mean));
    const svg = frame(figure, 380, `${told(yMetric)}, against ${told(xMetric)}; the table has the numbers`);
    if (!drawn.length) return;
    const right = width() - 15;
    const x = scale(drawn.map(([point]) => point), 60, right, xMetric.key === "compute");
    const y = scale(drawn.map(([, point]) => point), 335, 25);
    for (const tick of y.ticks) {
      svg.append(make("line", { x1: 56, x2: 60, y1: y.at(tick), y2: y.at(tick), class: "axis" }));
      svg.append(make("text", { x: 52, y: y.at(tick) + 4, "text-anchor": "end" }, spell(tick)));
    }
    svg.append(make("line", { x1: 60, x2: right, y1: 335, y2: 335, class: "axis" }), make("line", { x1: 60, x2: 60, y1: 25, y2: 335, class: "axis" }));
    svg.append(make("text", { x: 4, y: 14 }, told(yMetric)));
    // Names are drawn where there is room, the baseline's and the lowest rows' first; the others show on hover.
    const placed = drawn.map(([a, b]) => ({ left: x.at(a.mean) - 5, right: x.at(a.mean) + 5, y: y.at(b.mean) - 4 }));
    const room = (box) => placed.every((each) => box.left > each.right || box.right < each.left || Math.abs(box.y - each.y) > 11);
    drawn.sort(([, one], [, other]) => other.baseline - one.baseline || one.mean - other.mean);
    for (const [a, b] of drawn) {
      const [cx, cy] = [x.at(a.mean), y.at(b.mean)];
      const inside = [title(`${sentence(b)}; ${spell(a.mean)}`)];
      if (!isNaN(b.low)) inside.push(make("line", { x1: cx, x2: cx, y1: y.at(b.low), y2: y.at(b.high), class: "bar" }));
      if (!isNaN(a.low)) inside.push(make("line", { x1: x.at(a.low), x2: x.at(a.high), y1: cy, y2: cy, class: "bar" }));
      inside.push(make("circle", { cx, cy, r: 4, class: a.baseline ? "baseline" : "" }));
      const left = cx > 0.75 * width();
      const wide = 6.2 * a.name.length, start = cx + (left ? -7 - wide : 7);
      const box = { left: start, right: start + wide, y: cy - 5 };
      if (room(box)) {
        placed.push(box);
        inside.push(make("text", { x: cx + (left ? -7 : 7), y: cy - 5, "text-anchor": left ? "end" : "start" }, a.name));
      }
      svg.append(linked(b, ...inside));
    }
    axis(svg, x, 335, told(xMetric));
  }

  for (const section of sections) {
    for (const head of section.querySelectorAll("thead th")) {
      const button = Object.assign(document.createElement("button"), { type: "button" });
      button.append(...head.childNodes);
      button.addEventListener("click", () => sort(head));
      head.append(button);
    }
  }
  window.addEventListener("resize", draw);
  get("experiment").addEventListener("change", (event) => show(event.target.value));
  get("filter").addEventListener("input", filter);
  get("metric").addEventListener("change", draw);
  get("against").addEventListener("change", draw);
  controls.querySelectorAll("[name=family]").forEach((box) => box.addEventListener("change", filter));
  controls.hidden = false;
  show(sections.some((each) => `#${each.id}` === location.hash) ? location.hash.slice(1) : sections[0].id);
  get("experiment").value = sections.find((each) => !each.hidden).id;
});
