// Tables: one metric at a time, sorting, CSV, and where a number comes from.

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

function showMetric() {
  for (const part of all("[data-metric]")) part.hidden = part.dataset.metric !== $("metric").value;
}

// A click on a column's name sorts by it, highest first; once more, lowest first.
function turn(header) {
  const order = header.ariaSort === "descending" ? "ascending" : "descending";
  for (const other of header.parentElement.cells) other.ariaSort = null;
  header.ariaSort = order;
}

function sort(header) {
  const body = header.closest("table").tBodies[0];
  const sign = header.ariaSort === "ascending" ? 1 : -1;
  const value = (row) => {
    const cell = row.cells[header.cellIndex];
    return cell.dataset.sort === undefined ? cell.textContent : Number(cell.dataset.sort);
  };
  const compare = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (typeof x === "string" && typeof y === "string") return -sign * x.localeCompare(y);
    if (typeof x !== typeof y) return typeof x === "string" ? 1 : -1; // what is absent stays below
    return sign * (x - y);
  };
  body.append(...[...body.rows].sort(compare));
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
  const cells = new Set();
  const lines = data.traced[key].map(([seed, value, numbers]) => {
    const names = numbers.map((number) => data.cells[number]);
    names.forEach((name) => cells.add(name));
    const line = document.createElement("tr");
    for (const text of [seed, (100 * value).toFixed(2), names.join(" ")])
      line.insertCell().textContent = text;
    return line;
  });
  $("source").querySelector("tbody").replaceChildren(...lines);
  const copies = [...cells].map((name) => {
    const copy = $(`cell-${name}`).cloneNode(true);
    copy.removeAttribute("id");
    copy.open = cells.size === 1;
    return copy;
  });
  $("source").querySelector(".cells").replaceChildren(...copies);
  $("source").showModal();
}
