// A click on a column's head sorts its table by that column, a second one the other way round.
document.querySelectorAll("table.sortable th button").forEach((button) => {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const table = head.closest("table");
    const down = head.getAttribute("aria-sort") !== "descending";
    table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => row.cells[head.cellIndex].dataset.value;
    const order = (a, b) =>
      isNaN(a) || isNaN(b) ? a.localeCompare(b) * (down ? -1 : 1) : (a - b) * (down ? -1 : 1);
    const body = table.tBodies[0];
    [...body.rows].sort((a, b) => order(key(a), key(b))).forEach((row) => body.append(row));
  });
});
