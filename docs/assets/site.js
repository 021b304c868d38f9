// The theme's search is a dialog without a name.
// What overflows must be reachable by keyboard: code, formulas and tables that scroll get a tab stop.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  document.querySelector("[data-md-component=search]")?.setAttribute("aria-label", "Search");
  const reachable = () => {
    for (const each of document.querySelectorAll(".md-typeset pre > code, .md-typeset__scrollwrap, .formula, .plot.wide")) {
      if (each.scrollWidth > each.clientWidth) each.tabIndex = 0;
      else each.removeAttribute("tabindex");
    }
  };
  reachable();
  window.addEventListener("resize", reachable);
});
