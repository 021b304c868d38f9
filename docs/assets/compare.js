// The results page: which experiment, metric, rows and columns are shown is the view, and the view is the address.
// Numbers, axes and verdicts come from data/*.json, made when the site is built; nothing is computed here.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const controls = document.getElementById("compare-controls");
  if (!controls) return;
  const get = (name) => document.getElementById(`compare-${name}`);
  const make = (tag, properties = {}, ...inside) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...inside);
    return made;
  };
  const KINDS = JSON.parse(controls.dataset.kinds);
  const FIRST = { experiment: get("experiment").value, metric: "test_loss.end", against: "compute", rows: "short", cells: "difference", filter: "", sort: "", columns: "", without: "" };
  let view = { ...FIRST }, shown = null, typed = false;

  // The address: only what differs from the first view stands in it.
  function read() {
    const given = new URLSearchParams(location.hash.slice(1));
    const known = Object.fromEntries([...given].filter(([name]) => name in FIRST));
    const anchors = [...get("experiment").options].map((each) => each.value);
    const anchor = location.hash.slice(1);
    const next = { ...FIRST, ...(anchors.includes(anchor) ? { experiment: anchor } : known) };
    if (!anchors.includes(next.experiment)) next.experiment = FIRST.experiment;
    return next;
  }
  function address() {
    const given = new URLSearchParams(Object.entries(view).filter(([name, value]) => value !== FIRST[name]));
    return `${location.pathname}${location.search}${given.size ? `#${given}` : ""}`;
  }
  function change(changes, isTyping = false) {
    view = { ...view, ...changes };
    history[isTyping && typed ? "replaceState" : "pushState"](null, "", address());
    typed = isTyping;
    show();
  }

  // One file per experiment, loaded when it is asked for.
  const loaded = new Map();
  const waiting = new Map();
  window.neftLoaded = (key, data) => waiting.get(key)(data);
  function load(key) {
    if (!loaded.has(key)) loaded.set(key, location.protocol === "file:" ? run(key) : fetch(`data/${key}.json`).then((answer) => answer.json()));
    return loaded.get(key);
  }
  const run = (key) => new Promise((resolve) => {
    waiting.set(key, resolve);
    document.head.append(make("script", { src: `data/${key}.js` }));
  });

  async function show() {
    const wanted = view;
    const data = await load(view.experiment);
    if (wanted !== view) return; // another view was asked for meanwhile
    shown = data;
    const keys = data.columns.map((each) => each.key);
    if (!keys.includes(view.metric)) view = { ...view, metric: keys[0] };
    if (!keys.includes(view.against)) view = { ...view, against: "compute" };
    set();
    draw();
  }

  const column = (key) => shown.columns.find((each) => each.key === key);
  const named = (each) => each.label + (each.unit && !each.label.includes(each.unit) ? ` (${each.unit})` : "");
  const columns = () => (view.columns ? view.columns.split(",") : [...shown.short, "compute"]).map(column).filter(Boolean);
  const families = () => [...new Set(shown.rows.filter((row) => !row.baseline).map((row) => row.family))];

  // Controls say what the view is.
  function set() {
    for (const name of ["metric", "against"]) {
      get(name).replaceChildren(...shown.columns.filter((each) => name === "against" || !each.cost).map((each) => new Option(named(each), each.key)));
    }
    for (const name of ["experiment", "metric", "against", "rows", "cells", "filter"]) if (get(name).value !== view[name]) get(name).value = view[name];
    const box = (name, value, text, checked) => make("label", {}, make("input", { type: "checkbox", name, value, checked }), ` ${text}`);
    const hidden = view.without.split(",");
    get("families").replaceChildren(get("families").firstElementChild, ...families().map((each) => box("family", each, each, !hidden.includes(each))));
    const chosen = columns().map((each) => each.key);
    get("columns").replaceChildren(get("columns").firstElementChild, ...shown.columns.map((each) => box("column", each.key, named(each), chosen.includes(each.key))));
    get("csv").href = `data/${shown.key}.csv`;
    get("setting").textContent = `${shown.title}: ${shown.setting}.`;
  }

  const difference = (row, key) => row.cells[key]?.diff ?? (column(key).cost && !(row.cells[key]?.of >= 0) ? row.cells[key]?.mean : undefined);
  function rows() {
    const words = view.filter.toLowerCase().split(/\s+/).filter(Boolean);
    const hidden = view.without.split(",");
    const wanted = (row) => row.baseline || ((view.rows === "all" || row.short) && words.every((word) => row.name.toLowerCase().includes(word)) && !hidden.includes(row.family));
    const chosen = shown.rows.filter(wanted);
    if (!view.sort) return view.rows === "all" ? chosen : chosen.sort((one, other) => one.short - other.short);
    const down = view.sort.startsWith("-") ? -1 : 1, key = view.sort.replace(/^-/, "");
    return chosen.sort((one, other) => {
      if (one.baseline || other.baseline) return other.baseline - one.baseline;
      if (key === "row") return one.name.localeCompare(other.name) * down;
      const [a, b] = column(key) ? [difference(one, key), difference(other, key)] : [];
      if (a === undefined || b === undefined) return (a === undefined) - (b === undefined); // what was not measured stays last
      return (a - b) * down;
    });
  }

  const fixed = (value, digits, sign = false) => {
    const text = Math.abs(value).toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
    const zero = !/[1-9]/.test(text);
    return (value < 0 && !zero ? "−" : sign ? "+" : "") + text;
  };
  const interval = (cell, digits) => (cell.low === undefined ? (cell.seeds > 1 ? "at every seed" : "one seed") : `[${fixed(cell.low, digits, true)}, ${fixed(cell.high, digits, true)}]`);
  const badge = (cell, point = "") => make("span", { className: `badge ${KINDS[cell.verdict] ?? "neutral"}`, title: cell.says ?? "" }, `${point && `${point}: `}${cell.verdict}`);

  // The two points of a metric: its end, and the best evaluation where that was measured.
  const pointsOf = (key) => ["end", "best"].map((point) => [point, `${key.replace(/\.\w+$/, "")}.${point}`]).filter(([, each]) => column(each));

  function track(row) {
    const drawn = pointsOf(view.metric).filter(([, key]) => row.cells[key]?.diff !== undefined);
    if (!drawn.length) return "";
    const { axis, digits } = column(view.metric);
    const place = (value) => 100 * Math.min(1, Math.max(0, (value - axis[0]) / (axis[1] - axis[0])));
    const bar = make("span", { className: "track", role: "img" }, make("i", { className: "zero", style: `left:${place(0)}%` }));
    for (const [point, key] of drawn) {
      const cell = row.cells[key], kind = `${point} ${KINDS[cell.verdict] ?? "neutral"}`;
      if (cell.low !== undefined) bar.append(make("i", { className: `bar ${kind}`, style: `left:${place(cell.low)}%;width:${place(cell.high) - place(cell.low)}%` }));
      const out = cell.diff < axis[0] ? " below" : cell.diff > axis[1] ? " above" : "";
      bar.append(make("i", { className: `dot ${kind}${out}`, style: `left:${place(cell.diff)}%` }));
    }
    bar.ariaLabel = drawn.map(([point, key]) => `${point} ${fixed(row.cells[key].diff, digits, true)} ${interval(row.cells[key], digits)}`).join("; ");
    return bar;
  }

  function cellOf(row, each) {
    const cell = row.cells[each.key], data = make("td");
    data.dataset.label = each.label;
    if (!cell || cell.mean === undefined) return data.append("-"), data;
    const against = cell.of === undefined ? fixed(cell.mean, each.digits) : `${fixed(cell.mean, each.digits)} against ${fixed(cell.of, each.digits)}`;
    const isDifference = cell.diff !== undefined && view.cells === "difference";
    data.append(isDifference ? fixed(cell.diff, each.digits, true) : against);
    if (isDifference) data.append(make("small", {}, make("span", { className: "whole" }, interval(cell, each.digits))));
    if (isDifference && KINDS[cell.verdict]) data.className = KINDS[cell.verdict];
    if (cell.verdict) data.title = `${against} over ${cell.seeds} seeds; ${cell.says ?? cell.verdict}`;
    return data;
  }

  // A long name goes on in the next line behind an underscore.
  const breakable = (name) => name.split(/(?<=_)/).flatMap((part) => [part, make("wbr")]);

  function head(key, ...inside) {
    const button = make("button", { type: "button" }, ...inside);
    button.addEventListener("click", () => change({ sort: view.sort === key ? `-${key}` : key }));
    const cell = make("th", { scope: "col" }, button);
    cell.dataset.key = key;
    if (view.sort.replace(/^-/, "") === key) cell.ariaSort = view.sort.startsWith("-") ? "descending" : "ascending";
    return cell;
  }

  function draw() {
    const metric = column(view.metric), [low, high] = metric.axis, chosen = rows();
    const sides = { lower: "← better · worse →", higher: "← worse · better →" }[metric.better] ?? "← lower · higher →";
    const ends = make("span", { className: "axis" }, ...[fixed(low, metric.digits, true), sides, fixed(high, metric.digits, true)].map((text) => make("span", {}, text)));
    const chart = head(view.metric, `${named(metric).replace(/, at the \w+( \w+)?/, "")} minus the baseline`, ends);
    chart.classList.add("chart");
    const table = make("table", { className: "results", ariaLabel: `Results: ${shown.title}` }, make("caption", {}, `${shown.title}: paired differences to the baseline with 95 % intervals`));
    table.dataset.cards = "";
    const verdict = make("th", { scope: "col" }, "verdict");
    table.append(make("thead", {}, make("tr", {}, head("row", "row"), chart, ...columns().map((each) => head(each.key, each.label)), verdict)));
    const body = make("tbody");
    for (const row of chosen) {
      const words = breakable(row.name);
      const name = make("th", { scope: "row" }, ...(row.href ? [make("a", { href: row.href }, ...words)] : words));
      if (row.failed) name.append(make("small", {}, `${row.failed} of ${row.runs.length} runs failed`));
      const cells = pointsOf(view.metric).map(([point, key]) => [point, row.cells[key]]).filter(([, cell]) => cell?.verdict);
      const verdicts = make("td", {}, ...cells.map(([point, cell]) => badge(cell, point)));
      verdicts.dataset.label = "verdict";
      verdicts.append(runs(row));
      const line = make("tr", {}, name, make("td", { className: "chart" }, track(row)), ...columns().map((each) => cellOf(row, each)), verdicts);
      if (row.baseline) line.dataset.baseline = "";
      line.dataset.family = row.family;
      body.append(line);
    }
    table.append(body);
    get("table").replaceChildren(table);
    const all = shown.rows.length;
    get("count").textContent = `${chosen.length} of ${all} rows${chosen.length < all ? "; the baseline is always shown." : "."}`;
    window.neftCharts.scatter(get("scatter"), chosen, column(view.against), metric);
  }

  function runs(row) {
    const list = make("details", { className: "runs" }, make("summary", {}, `${row.runs.length} runs`));
    list.addEventListener("toggle", () => {
      if (list.childElementCount > 1) return;
      list.append(...row.runs.map(([seed, href, ok]) => make("a", { href }, `s${seed}${ok ? "" : " failed"}`)));
    });
    return list;
  }

  for (const name of ["experiment", "metric", "against", "rows", "cells"]) get(name).addEventListener("change", (event) => change({ [name]: event.target.value, ...(name === "experiment" ? { sort: "", columns: "", without: "" } : {}) }));
  get("filter").addEventListener("input", (event) => change({ filter: event.target.value }, true));
  const boxes = (name, isChecked) => [...controls.querySelectorAll(`[name=${name}]`)].filter((box) => box.checked === isChecked).map((box) => box.value);
  get("families").addEventListener("change", () => change({ without: boxes("family", false).join(",") }));
  get("columns").addEventListener("change", () => change({ columns: boxes("column", true).join(",") }));
  window.addEventListener("popstate", () => {
    view = read();
    typed = false;
    show();
  });
  window.addEventListener("resize", () => shown && window.neftCharts.scatter(get("scatter"), rows(), column(view.against), column(view.metric)));
  for (const each of [controls, get("count"), get("scatter")]) each.hidden = false;
  view = read();
  show();
});
