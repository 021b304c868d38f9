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
      .map((head, place) => ({ key: head.dataset.key, label: head.dataset.label || head.dataset.key, unit: head.dataset.unit || "", better: head.dataset.better, digits: head.dataset.digits, place }))
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
    window.neftCharts.forest(get("forest"), points(y.key), y);
    window.neftCharts.scatter(get("scatter"), points(x.key), points(y.key), x, y);
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
