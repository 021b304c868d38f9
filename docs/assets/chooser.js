// The chooser: looks an answer up in the tables of the page and fills its texts. docs/builder/chooser.py makes both.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const form = document.getElementById("chooser-form");
  if (!form) return;
  const tables = JSON.parse(document.getElementById("chooser-tables").textContent);
  const names = [...form.elements].map((each) => each.name);
  const given = () => Object.fromEntries(names.map((name) => [name, form.elements[name].value]));
  const look = (name, at) => tables[name][tables.depends[name].map((field) => at[field]).join("|")];

  function answer(given) {
    const [noise, why] = look("choice", given), at = { ...given, noise };
    const slots = Object.assign({}, ...Object.keys(tables.depends).filter((name) => name.endsWith("_slots")).map((name) => look(name, at)));
    const fill = (text) => Object.entries(slots).reduce((filled, [slot, value]) => filled.replaceAll(`%${slot}%`, value), text);
    return {
      noise, why: tables.reasons[why], memory: look("memory", at), expect: look("expect", at), control: look("control", at),
      code: fill(tables.texts.code[`${at.framework}|${at.method}|${at.packing}`]),
      recipe: fill(tables.texts.recipe[`${at.method}|${at.packing}`]),
      compare: fill(tables.texts.compare[""]),
    };
  }
  window.neftChooser = { answer };

  function show() {
    const found = answer(given());
    for (const name of ["why", "memory", "code", "recipe", "compare"]) document.getElementById(`chooser-${name}`).textContent = found[name];
    for (const name of ["expect", "control"]) document.getElementById(`chooser-${name}`).innerHTML = found[name];
  }
  function sizes() {
    const size = form.elements.size, before = size.value, known = tables.models[form.elements.family.value];
    size.replaceChildren(...known.map((each) => new Option(each, each)));
    size.value = known.includes(before) ? before : known.at(-1);
  }
  function read() {
    const asked = new URLSearchParams(location.hash.slice(1));
    for (const name of ["family", ...names.filter((each) => each !== "family")]) {
      const field = form.elements[name];
      if (name === "size") sizes();
      if ([...field.options].some((option) => option.value === asked.get(name))) field.value = asked.get(name);
    }
    show();
  }
  form.addEventListener("change", (event) => {
    if (event.target.name === "family") sizes();
    history.pushState(null, "", `${location.pathname}#${new URLSearchParams(given())}`);
    show();
  });
  window.addEventListener("popstate", () => { form.reset(); read(); });
  form.hidden = false;
  read();
});
