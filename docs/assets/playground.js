// The playground: what a strategy adds, in closed form. tests/site/test_site_browser.py compares it with the package.
"use strict";
(() => {
  // Quantiles of a distribution of scale 1, from which averages are taken: no random numbers, so no jitter.
  function normal(p) {
    // Newton's method from the logistic distribution's quantile.
    let x = 0.5513 * Math.log(p / (1 - p));
    for (let i = 0; i < 8; i++) x -= (cumulative(x) - p) / (Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI));
    return x;
  }
  function cumulative(x) {
    // Marsaglia's series: exact to double precision for |x| < 7.
    let sum = x, term = x;
    for (let i = 3; Math.abs(term) > 1e-17 * Math.abs(sum) && i < 400; i += 2) sum += term *= (x * x) / i;
    return 0.5 + sum * Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);
  }
  const quantiles = {
    uniform: (p) => (2 * p - 1) * Math.sqrt(3),
    rademacher: (p) => (p < 0.5 ? -1 : 1),
    gaussian: normal,
    sphere: normal, // a feature of a random direction in many dimensions
    laplace: (p) => (p < 0.5 ? Math.log(2 * p) : -Math.log(2 - 2 * p)) / Math.SQRT2,
  };
  const grid = (what, count) => Array.from({ length: count }, (_, i) => quantiles[what]((i + 0.5) / count));

  const float = new Float32Array(1), integer = new Int32Array(float.buffer);
  const bits = (value) => ((float[0] = value), integer[0]);
  const value = (bits) => ((integer[0] = bits), float[0]);
  const LEFT_OUT = { bfloat16: 16, float16: 13 }; // the bits of a float32 that a narrower type leaves out

  function nearest(number, left) {
    const raw = bits(number);
    return value((raw + (1 << (left - 1)) - 1 + ((raw >> left) & 1)) & -(1 << left));
  }

  // Probability that an embedding is what it was, after rounding at random as the package does (neft_zoo/passes/rounding.py).
  function kept(embed, delta, left) {
    const exact = Math.fround(embed + delta), step = 1 << left, low = bits(exact) & -step;
    const sides = [value(low), value(low + step)];
    if (sides[0] === exact) return exact === embed ? 1 : 0;
    const [inner, outer] = sides.sort((a, b) => (a - embed) ** 2 - (b - embed) ** 2);
    const share = (delta ** 2 - (inner - embed) ** 2) / ((outer - embed) ** 2 - (inner - embed) ** 2);
    const clamped = Math.min(1, Math.max(0, share));
    return inner === embed ? 1 - clamped : outer === embed ? clamped : 0;
  }

  // Shares of coordinates that stay as they were: [rounding to nearest, this package].
  function unchanged(what, rms, embedding, dtype) {
    const left = LEFT_OUT[dtype], draws = grid(what, 255).map((each) => Math.fround(each * rms));
    const embeds = grid("gaussian", 256).map((each) => each * embedding);
    let plain = 0, ours = 0;
    for (const each of embeds) {
      const embed = left ? nearest(each, left) : Math.fround(each);
      for (const delta of draws) {
        const sum = Math.fround(embed + delta);
        const same = (left ? nearest(embed + nearest(delta, left), left) : sum) === embed ? 1 : 0;
        plain += same;
        ours += left ? kept(embed, delta, left) : same;
      }
    }
    return [plain, ours].map((sum) => sum / (embeds.length * draws.length));
  }

  const size = (strategy, { strength, tokens, width, embedding }) => ({ length: strength / Math.sqrt(tokens * width), fixed: strength, relative: strength * embedding })[strategy.scale];

  function compute(strategy, given) {
    const { tokens, width, embedding, dtype } = given, scale = size(strategy, given), rms = scale * strategy.rms;
    const [nearestShare, packageShare] = rms > 0 ? unchanged(strategy.what, rms, embedding, dtype) : [1, 1];
    return {
      bound: strategy.bound === null ? null : scale * strategy.bound,
      rms,
      token: rms * Math.sqrt(width),
      document: rms * Math.sqrt(tokens * width),
      snr: rms > 0 ? 20 * Math.log10(embedding / rms) : null,
      nearest: nearestShare,
      package: packageShare,
    };
  }
  window.neftPlayground = { compute };

  document.addEventListener("DOMContentLoaded", () => {
    const form = document.getElementById("playground-form");
    if (!form) return;
    const strategies = JSON.parse(document.getElementById("playground-strategies").textContent);
    const field = (name) => form.elements[name];
    field("strategy").replaceChildren(...strategies.map((each, place) => new Option(each.label, place)));
    field("strategy").value = strategies.findIndex((each) => each.label === "neft_uniform");
    const chosen = () => strategies[field("strategy").value];

    function update() {
      const given = Object.fromEntries(["strength", "tokens", "width", "embedding"].map((name) => [name, Number(field(name).value)]));
      const wrong = !form.checkValidity() || Object.values(given).some((each) => !isFinite(each));
      document.getElementById("playground-wrong").hidden = !wrong;
      if (wrong) return;
      const found = compute(chosen(), { ...given, dtype: field("dtype").value });
      curve(given);
      snippet(given);
      const number = (each) => (each === null ? "none" : each === 0 ? "0" : each.toPrecision(4));
      const percent = (each) => `${(100 * each).toFixed(1)} %`;
      const told = { bound: number, rms: number, token: number, document: number, snr: (each) => (each === null ? "no noise" : `${each.toFixed(1)} dB`), nearest: percent, package: percent };
      for (const [name, spell] of Object.entries(told)) {
        const output = document.getElementById(`playground-${name}`);
        output.value = spell(found[name]);
        output.dataset.value = found[name] === null ? "" : found[name];
      }
    }
    function choose() {
      document.getElementById("playground-argument").textContent = chosen().argument;
      field("strength").value = chosen().default;
      document.getElementById("playground-link").href = `strategies/${chosen().name}.html`;
      document.getElementById("playground-link").textContent = chosen().name;
      update();
    }
    field("strategy").addEventListener("change", choose);
    const presets = JSON.parse(document.getElementById("playground-presets").textContent);
    field("preset").append(...presets.map((each) => new Option(each.name, each.name)));
    function fill() {
      const preset = presets.find((each) => each.name === field("preset").value);
      const source = document.getElementById("playground-source");
      source.hidden = !preset;
      if (preset) {
        [field("width").value, field("embedding").value] = [preset.width, preset.rms];
        source.textContent = `Embedding rms of ${preset.name}: ${preset.rms}, ${preset.source}.`;
      }
      update();
    }
    field("preset").addEventListener("change", fill);
    field("preset").value = presets[0].name;
    for (const name of ["width", "embedding"]) field(name).addEventListener("input", () => { field("preset").value = ""; document.getElementById("playground-source").hidden = true; });

    // The signal-to-noise ratio over the length of a document, and where the setting lies on it.
    function curve(given) {
      const figure = document.getElementById("playground-curve"), strategy = chosen(), [wide, high] = [360, 190];
      const lengths = Array.from({ length: 41 }, (_, place) => 8 * 2 ** (place / 4)); // 8 to 8,192
      const at = (tokens) => 20 * Math.log10(given.embedding / (size(strategy, { ...given, tokens }) * strategy.rms));
      const levels = lengths.map(at);
      figure.hidden = !levels.every(isFinite);
      if (figure.hidden) return;
      const [low, top] = [Math.floor(Math.min(...levels) / 10) * 10, Math.ceil((Math.max(...levels) + 1) / 10) * 10];
      const x = (tokens) => 40 + ((Math.log2(tokens) - 3) / 10) * (wide - 54), y = (level) => high - 34 - ((level - low) / (top - low)) * (high - 56);
      const inside = [];
      for (let level = low; level <= top; level += 10) inside.push(`<line x1="40" x2="${wide - 14}" y1="${y(level)}" y2="${y(level)}" class="${level ? "grid" : "zero"}"/><text x="34" y="${y(level) + 4}" text-anchor="end">${String(level).replace("-", "−")}</text>`);
      for (const tokens of [8, 32, 128, 512, 2048, 8192]) inside.push(`<text x="${x(tokens)}" y="${high - 18}" text-anchor="${tokens === 8192 ? "end" : "middle"}">${tokens.toLocaleString("en-US")}</text>`);
      inside.push(`<polyline class="front" points="${lengths.map((tokens, place) => `${x(tokens)},${y(levels[place])}`).join(" ")}"/>`);
      if (given.tokens >= 8 && given.tokens <= 8192) inside.push(`<circle class="dot neutral" r="4" cx="${x(given.tokens)}" cy="${y(at(given.tokens))}"/>`);
      figure.innerHTML = `<svg class="neft-chart" viewBox="0 0 ${wide} ${high}" role="img" aria-label="Signal-to-noise ratio over document length" style="max-width: 24rem"><text x="4" y="12">dB of embedding over noise</text><text x="${wide - 14}" y="${high - 3}" text-anchor="end">tokens of the document</text>${inside.join("")}</svg>`;
    }
    function snippet(given) {
      const noise = { name: chosen().name, [chosen().argument]: given.strength, ...chosen().changed };
      const spelled = (each) => (typeof each === "boolean" ? (each ? "True" : "False") : JSON.stringify(each));
      const lines = Object.entries(noise).map(([key, value]) => `        "${key}": ${spelled(value)},`);
      const block = document.getElementById("playground-snippet");
      block.hidden = false;
      block.querySelector("code").textContent = `trainer = SFTTrainer(\n    model,\n    train_dataset=data,\n    noise={\n${lines.join("\n")}\n    },\n)`;
    }
    form.addEventListener("input", update);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.hidden = false;
    choose();
    fill();
  });
})();
