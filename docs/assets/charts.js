// Charts of the results page as SVG: paired differences with their intervals, and one metric against another.
"use strict";
window.neftCharts = (() => {
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
  // Differences below what the table shows must not look large: so many digits are a tenth of the axis at least.
  function scale(points, from, to, { digits = 3, logarithmic = false } = {}) {
    const values = points.flatMap((each) => [each.mean, each.low, each.high]).filter((value) => !isNaN(value));
    let low = Math.min(...values), high = Math.max(...values);
    const least = 10 ** (1 - digits), middle = (low + high) / 2;
    if (!(high - low > least)) [low, high] = [middle - least / 2, middle + least / 2];
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
  let wide = 520;
  const width = () => wide;

  function frame(figure, height, label) {
    wide = figure.parentElement.clientWidth < 500 ? 380 : 520;
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
    const x = scale(drawn, names + 10, width() - 15, metric);
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
    const x = scale(drawn.map(([point]) => point), 60, right, { ...xMetric, logarithmic: xMetric.key === "compute" });
    const y = scale(drawn.map(([, point]) => point), 335, 25, yMetric);
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

  return { forest, scatter };
})();
