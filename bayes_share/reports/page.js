"use strict";
// Sort a table by a column: numbers by value, text alphabetically, empty cells last.
for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const body = head.closest("table").tBodies[0];
    const column = [...head.parentNode.children].indexOf(head);
    const first = head.dataset.better === "higher" ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    for (const each of head.parentNode.children) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const isText = head.classList.contains("text");
    const key = (row) => (isText ? row.cells[column].textContent.trim() : row.cells[column].dataset.value);
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      return sign * (isText ? x.localeCompare(y, "en", { numeric: true }) : Number(x) - Number(y));
    };
    body.append(...[...body.rows].sort(compare));
  });
}
// The theme follows the system until the button is used.
const theme = document.getElementById("theme");
const root = document.documentElement;
const isDark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
const label = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; label(); });
theme.hidden = false;
label();
// Expand collapsed blocks before printing.
addEventListener("beforeprint", () => { for (const each of document.querySelectorAll("details")) each.open = true; });
