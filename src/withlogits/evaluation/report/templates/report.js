"use strict";

// The theme: that of the system until the button is pressed. Nothing is stored, which a page from a file may not do.
{
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  const dark = () => (chosen ?? (system.matches ? "dark" : "light")) === "dark";
  const show = () => {
    if (chosen) document.documentElement.style.colorScheme = chosen;
    button.textContent = dark() ? button.dataset.light : button.dataset.dark;
  };
  button.addEventListener("click", () => {
    chosen = dark() ? "light" : "dark";
    show();
  });
  system.addEventListener("change", show);
  button.hidden = false;
  show();
}

// Tables: the first press of a heading sorts numbers from the largest, names from the first; the next turns it round.
// What has no value comes last either way.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const names = new Intl.Collator(document.documentElement.lang, { numeric: true });
  headings.forEach((heading, place) => {
    heading.querySelector("button").addEventListener("click", () => {
      const before = heading.getAttribute("aria-sort");
      const turned = before === "ascending" ? "descending" : "ascending";
      const order = before === "none" ? heading.dataset.first : turned;
      const numeric = heading.dataset.numeric === "true";
      const number = (key) => (key === "inf" ? Infinity : key === "-inf" ? -Infinity : Number(key));
      const compare = (a, b) => {
        if (!numeric) return names.compare(a, b);
        const [x, y] = [number(a), number(b)];
        return x < y ? -1 : x > y ? 1 : 0;
      };
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...body.rows].map((row) => [row.cells[place].dataset.key, row]);
      rows.sort(([a], [b]) => (a === "" || b === "" ? (a === "") - (b === "") : sign * compare(a, b)));
      body.append(...rows.map(([, row]) => row));
      for (const other of headings) other.setAttribute("aria-sort", other === heading ? order : "none");
    });
  });
}

// What a mark says when it is pointed at or touched. Its number stands in a table too, for those who do not point.
{
  const tip = document.getElementById("tip");
  const hide = () => {
    tip.hidden = true;
  };
  const show = (event) => {
    const mark = event.target instanceof Element ? event.target.closest("[data-tip]") : null;
    if (!mark) return hide();
    tip.textContent = mark.dataset.tip;
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, event.clientX - width / 2), innerWidth - width - 8);
    const above = event.clientY - height - 12;
    tip.style.transform = `translate(${left}px, ${above < 4 ? event.clientY + 18 : above}px)`;
  };
  document.addEventListener("pointermove", show);
  document.addEventListener("pointerdown", show);
  document.addEventListener("scroll", hide, { passive: true, capture: true });
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
}
