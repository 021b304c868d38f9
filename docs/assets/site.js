// What overflows must be reachable by keyboard: code, formulas and tables that scroll get a tab stop.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const reachable = () => {
    for (const each of document.querySelectorAll(".md-typeset pre > code, .md-typeset__scrollwrap, .formula")) {
      if (each.scrollWidth > each.clientWidth) each.tabIndex = 0;
      else each.removeAttribute("tabindex");
    }
  };
  reachable();
  window.addEventListener("resize", reachable);
});
