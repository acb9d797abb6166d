"use strict";
// Sorting by a click on a heading, and the newest versions in view: the page is complete without either.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const value = (row, column) => {
    const cell = row.cells[column];
    return "sort" in cell.dataset ? Number(cell.dataset.sort) : cell.textContent.trim();
  };
  Array.from(table.tHead.rows[0].cells, (heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const rows = Array.from(body.rows);
      const isNumber = rows.length > 0 && typeof value(rows[0], column) === "number";
      const before = heading.getAttribute("aria-sort");
      // Numbers are looked at for the largest, names for the first.
      const order = before ? (before === "ascending" ? "descending" : "ascending") : isNumber ? "descending" : "ascending";
      const sign = order === "ascending" ? 1 : -1;
      rows.sort((one, other) => {
        const [a, b] = [value(one, column), value(other, column)];
        return sign * (isNumber ? a - b : a.localeCompare(b, "en", { numeric: true }));
      });
      body.append(...rows);
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", order);
    });
  });
}
for (const region of document.querySelectorAll(".newest")) region.scrollLeft = region.scrollWidth;
