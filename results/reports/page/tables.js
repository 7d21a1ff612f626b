// Tables: one metric at a time, sorting, CSV, and where a number comes from.

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

function showMetric() {
  for (const part of all("[data-metric]")) part.hidden = part.dataset.metric !== $("metric").value;
}

// A click on a column's name sorts by it, highest first; once more, lowest first.
function sort(button) {
  const header = button.closest("th");
  const body = header.closest("table").tBodies[0];
  const column = header.cellIndex;
  const up = turn(header);
  const number = (row) => parseFloat(row.cells[column].dataset.sort);
  const compare = (a, b) => {
    const [x, y] = [number(a), number(b)];
    if (Number.isNaN(x) || Number.isNaN(y)) {
      const [s, t] = [a, b].map((row) => row.cells[column].textContent);
      if (Number.isNaN(x) && Number.isNaN(y)) return (up ? 1 : -1) * t.localeCompare(s);
      return Number.isNaN(x) - Number.isNaN(y); // what is absent stays below
    }
    return up ? x - y : y - x;
  };
  body.append(...[...body.rows].sort(compare));
}

// Marks a header as the one that is sorted by; whether upwards.
function turn(header) {
  const up = header.getAttribute("aria-sort") === "descending";
  for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", up ? "ascending" : "descending");
  return up;
}

// A spreadsheet takes a text that begins so for a formula, whoever wrote it.
const harmless = (text) =>
  /^[=+\-@\t]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;

function saveCsv(name, rows) {
  const quoted = rows.map((row) =>
    row.map((text) => `"${harmless(String(text)).replaceAll('"', '""')}"`),
  );
  const text = quoted.map((row) => row.join(",")).join("\r\n");
  save(`${name}.csv`, `data:text/csv;charset=utf-8,${encodeURIComponent(`\ufeff${text}\r\n`)}`);
}

// The cells of a table as text; what is written small behind numbers has a column of its own.
function rowsOf(table) {
  const rows = [...table.rows].map((row) =>
    [...row.cells].map((cell) => {
      const small = cell.querySelector("small")?.textContent ?? "";
      const whole = cell.textContent.trim();
      return [small ? whole.slice(0, -small.length).trim() : whole, small.replace(/^± /, "")];
    }),
  );
  const split = rows[0].map((_, column) => rows.slice(1).some((row) => row[column]?.[1]));
  return rows.map((row, number) =>
    row.flatMap(([text, small], column) => {
      if (!split[column]) return [text];
      return number ? [text, small] : [text, `${text} (spread or note)`];
    }),
  );
}

function addCsv(table) {
  const button = document.createElement("button");
  const name = table.caption.textContent.trim();
  Object.assign(button, { type: "button", className: "save", textContent: "CSV" });
  button.setAttribute("aria-label", `Save as CSV: ${name}`);
  button.addEventListener("click", () => saveCsv(name, rowsOf(table)));
  table.caption.append(" ", button);
}

// Where a number comes from: its value for each seed, and the cells that it was measured in.
function showSource(key) {
  const [section, metric, row, label] = key.split(".").map(Number);
  const of = data.choices[section];
  $("source-title").textContent =
    `${of.methods[label]}: ${of.metrics[metric]}, ${of.rows[row]}, ${of.title}`;
  const body = $("source").querySelector("tbody");
  const shown = new Set();
  body.replaceChildren(
    ...data.traced[key].map(([seed, value, cells]) => {
      const line = document.createElement("tr");
      const names = cells.map((cell) => data.cells[cell]);
      names.forEach((name) => shown.add(name));
      for (const text of [seed, (100 * value).toFixed(2), names.join(" ")]) {
        line.insertCell().textContent = text;
      }
      return line;
    }),
  );
  const copies = [...shown].map((name) => {
    const copy = $(`cell-${name}`).cloneNode(true);
    copy.removeAttribute("id");
    copy.open = shown.size === 1;
    return copy;
  });
  $("source")
    .querySelector(".cells")
    .replaceChildren(...copies);
  $("source").showModal();
}
