"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// One metric at a time.
function showMetric() {
  for (const part of all("[data-metric]")) part.hidden = part.dataset.metric !== $("metric").value;
}
$("metric").addEventListener("change", showMetric);
showMetric();

// Tables: a click on a column's name sorts by it, highest first; once more, lowest first.
function sort(button) {
  const header = button.closest("th");
  const body = header.closest("table").tBodies[0];
  const column = header.cellIndex;
  const up = header.getAttribute("aria-sort") === "descending";
  for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", up ? "ascending" : "descending");
  const number = (row) => parseFloat(row.cells[column].dataset.sort);
  const words = (row) => row.cells[column].textContent;
  const compare = (a, b) => {
    const [x, y] = [number(a), number(b)];
    if (Number.isNaN(x) || Number.isNaN(y)) {
      if (Number.isNaN(x) && Number.isNaN(y)) return (up ? 1 : -1) * words(b).localeCompare(words(a));
      return Number.isNaN(x) - Number.isNaN(y); // what is absent stays below
    }
    return up ? x - y : y - x;
  };
  body.append(...[...body.rows].sort(compare));
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
  $("source").querySelector(".cells").replaceChildren(...copies);
  $("source").showModal();
}
$("source").addEventListener("click", (event) => {
  if (event.target === $("source")) $("source").close(); // outside of its border
});

// One category: its charts, pictures, and what a threshold would do.
const chosen = () => ["section", "category", "method"].map((name) => $(`choose-${name}`).value);

function options(select, entries) {
  const before = select.value;
  select.replaceChildren(...entries.map(([value, text]) => new Option(text, value)));
  if (entries.some(([value]) => String(value) === before)) select.value = before;
}

function chooseSection() {
  const of = data.choices[$("choose-section").value];
  options($("choose-category"), of.categories.map((name, number) => [number, name]));
  options($("choose-method"), Object.entries(of.methods));
  choose();
}

function choose() {
  const [section, category, method] = chosen();
  for (const panel of all(".panel")) {
    const { section: s, category: c, method: m } = panel.dataset;
    panel.hidden = s !== section || c !== category || (m !== undefined && m !== method);
  }
  const scores = data.thresholds[chosen().join(".")];
  document.querySelector(".threshold").hidden = !scores;
  $("no-scores").hidden = !!scores;
  if (!scores) return;
  const [normal, defective] = scores;
  steps = [...new Set([...normal, ...defective])].sort((a, b) => a - b);
  steps.push(Infinity);
  $("threshold").max = steps.length - 1;
  const above = data.alarms_from[chosen().join(".")];
  $("threshold").value =
    above === undefined ? best(normal, defective) : steps.findIndex((step) => step > above);
  $("starts-calibrated").hidden = above === undefined;
  $("starts-best").hidden = above !== undefined;
  move();
}

let steps = [];
const atOrAbove = (scores, threshold) => {
  let [low, high] = [0, scores.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (scores[middle] < threshold) low = middle + 1;
    else high = middle;
  }
  return scores.length - low;
};
const f1 = (hits, alarms, defective) => (hits ? (2 * hits) / (hits + alarms + defective) : 0);

function best(normal, defective) {
  const value = (step) =>
    f1(atOrAbove(defective, step), atOrAbove(normal, step), defective.length);
  return steps.reduce((top, step, i) => (value(step) > value(steps[top]) ? i : top), 0);
}

function move() {
  const [normal, defective] = data.thresholds[chosen().join(".")];
  const threshold = steps[$("threshold").value];
  const hits = atOrAbove(defective, threshold);
  const alarms = atOrAbove(normal, threshold);
  const words = threshold === Infinity ? "none: above all scores" : threshold.toPrecision(5);
  $("threshold-value").textContent = words;
  $("threshold").setAttribute("aria-valuetext", words);
  $("hits").textContent = hits;
  $("misses").textContent = defective.length - hits;
  $("alarms").textContent = alarms;
  $("passed").textContent = normal.length - alarms;
  const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)} %` : "–");
  $("rates").textContent =
    `F1 ${percent(f1(hits, alarms, defective.length), 1)}, ` +
    `recall ${percent(hits, defective.length)}, precision ${percent(hits, hits + alarms)}, ` +
    `false alarms on ${percent(alarms, normal.length)} of normal images`;
  const gallery = all(".panel:not([hidden]) .gallery figure");
  for (const figure of gallery) {
    const called = Number(figure.dataset.score) >= threshold;
    const right = called === (figure.dataset.defective === "1");
    const verdict = figure.querySelector(".verdict");
    verdict.textContent = called ? (right ? "found" : "false alarm") : right ? "passed" : "missed";
    verdict.classList.toggle("wrong", !right);
  }
}

if (data.choices.length) {
  $("choose-section").addEventListener("change", chooseSection);
  $("choose-category").addEventListener("change", choose);
  $("choose-method").addEventListener("change", choose);
  $("threshold").addEventListener("input", move);
  chooseSection();
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button.sort, button.number, a[data-category]");
  if (!button) return;
  if (button.matches(".sort")) sort(button);
  else if (button.matches(".number")) showSource(button.dataset.key);
  else {
    const section = button.closest("section").id.replace("section-", "");
    $("choose-section").value = section;
    chooseSection();
    $("choose-category").value = data.choices[section].categories.indexOf(button.dataset.category);
    choose();
  }
});
