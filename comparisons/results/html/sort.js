// A click on a column's head sorts its table by that column (numbers from the highest, names from
// the first), a second one the other way round. What has no value stands last either way.
document.querySelectorAll("table.sortable th button").forEach((button) => {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const table = head.closest("table");
    const ways = head.classList.contains("name")
      ? ["ascending", "descending"]
      : ["descending", "ascending"];
    const way = head.getAttribute("aria-sort") === ways[0] ? ways[1] : ways[0];
    table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", way);
    const sign = way === "ascending" ? 1 : -1;
    const key = (row) => row.cells[head.cellIndex].dataset.value;
    const order = (a, b) => {
      if (a === "" || b === "") return (a === "") - (b === "");
      return sign * (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b);
    };
    const body = table.tBodies[0];
    [...body.rows].sort((a, b) => order(key(a), key(b))).forEach((row) => body.append(row));
  });
});
