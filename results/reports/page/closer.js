// One category: its charts, pictures and images, and what a threshold would do.

const chosen = () =>
  ["section", "category", "method"].map((name) => Number($(`choose-${name}`).value));
const named = (tag, text, className = "") =>
  Object.assign(document.createElement(tag), { textContent: text, className });
const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)} %` : "–");
const VERDICTS = ["missed", "false alarm", "found", "passed"];
const verdictOf = (defective, called) => VERDICTS[called ? (defective ? 2 : 1) : defective ? 0 : 3];
const MOST_ROWS = 200;
const BINS = 32;

let view = null; // images, steps and figures of the chosen category and method

function options(select, entries) {
  const before = select.value;
  select.replaceChildren(...entries.map(([value, text]) => new Option(text, value)));
  if (entries.some(([value]) => String(value) === before)) select.value = before;
}

// The images of a category with their scores by method; of the last one those of all.
function imagesOf(section, category) {
  const { categories, pooled } = data.choices[section];
  if (!pooled || category < categories.length - 1) return data.images[`${section}.${category}`];
  const parts = categories.map((_, i) => data.images[`${section}.${i}`]).filter(Boolean);
  const joined = (name) => parts.flatMap((part) => part[name]);
  const labels = Object.keys(data.choices[section].methods);
  const missing = (part) => part.keys.map(() => null);
  const scores = labels.map((label) => [
    label,
    parts.flatMap((part) => part.scores[label] ?? missing(part)),
  ]);
  if (!parts.length) return undefined;
  return {
    keys: joined("keys"),
    defects: joined("defects"),
    defective: joined("defective"),
    scores: Object.fromEntries(scores),
  };
}

function scored(images, label) {
  const scores = images?.scores[label] ?? [];
  return scores.flatMap((score, i) =>
    score === null
      ? []
      : [
          {
            key: images.keys[i],
            defect: images.defects[i],
            defective: !!images.defective[i],
            score,
          },
        ],
  );
}

function chooseSection() {
  const of = data.choices[$("choose-section").value];
  options(
    $("choose-category"),
    of.categories.map((name, number) => [number, name]),
  );
  options($("choose-method"), Object.entries(of.methods));
  choose();
}

function choose() {
  const [section, category, method] = chosen();
  const images = imagesOf(section, category);
  const rows = scored(images, method);
  const pictures = data.pictures.filter((p) => p.section === section && p.category === category);
  const steps = [...new Set(rows.map((row) => row.score))].sort((a, b) => a - b);
  view = {
    images,
    rows,
    pictures,
    steps: [...steps, Infinity],
    panel: `${section}.${category}.${method}`,
  };
  for (const part of all(".with-scores")) part.hidden = !rows.length;
  $("missing").textContent =
    data.choices[section].missing[category] && `No ${data.choices[section].missing[category]}.`;
  view.figures = pictures.filter((p) => p.label === method).map(galleryFigure);
  $("pictures").hidden = !view.figures.length;
  $("heat-legend").replaceChildren(
    ...(view.figures.length ? [legendBar(view.figures[0].picture)] : []),
  );
  showCurves(section, category, method);
  chooseImage();
  options($("filter-defect"), [
    ["", "all defects"],
    ...[...new Set(rows.map((row) => row.defect))].sort().map((name) => [name, name]),
  ]);
  const start = data.starts[view.panel];
  $("threshold").max = steps.length;
  $("threshold").value =
    start === null || start === undefined ? steps.length : view.steps.indexOf(start);
  $("starts-calibrated").hidden = !(view.panel in data.held);
  $("starts-best").hidden = view.panel in data.held;
  move();
}

const threshold = () => view.steps[$("threshold").value];

function move() {
  const limit = threshold();
  const count = (defective, called) =>
    view.rows.filter((row) => row.defective === defective && row.score >= limit === called).length;
  const [hits, misses, alarms, passed] = [
    count(true, true),
    count(true, false),
    count(false, true),
    count(false, false),
  ];
  const words = limit === Infinity ? "none: above all scores" : (limit?.toPrecision(5) ?? "");
  $("threshold-value").textContent = words;
  $("threshold").setAttribute("aria-valuetext", words);
  for (const [id, number] of Object.entries({ hits, misses, alarms, passed }))
    $(id).textContent = number;
  $("rates").textContent =
    `F1 ${percent(2 * hits, 2 * hits + alarms + misses)}, recall ${percent(hits, hits + misses)}, ` +
    `precision ${percent(hits, hits + alarms)}, false alarms on ${percent(alarms, alarms + passed)} of normal images`;
  if (view.rows.length) $("histogram").replaceChildren(figure(histogram(limit)));
  showDefects(limit);
  showGallery(view.rows.length ? limit : undefined);
  showImages();
}

function histogram(limit) {
  const scores = view.rows.map((row) => row.score);
  const [low, high] = [view.steps[0], view.steps[view.steps.length - 2]];
  const width = (high - low) / BINS || 1;
  const edges = Array.from({ length: BINS + 1 }, (_, i) => low + i * width);
  const counts = [new Array(BINS).fill(0), new Array(BINS).fill(0)];
  view.rows.forEach(
    ({ defective }, i) =>
      counts[+defective][Math.min(BINS - 1, Math.floor((scores[i] - low) / width))]++,
  );
  const bars = ["normal", "defective"].map((name, kind) => ({
    name,
    fill: `var(--${name})`,
    x: edges,
    y: counts[kind],
  }));
  return {
    title: `Scores of ${$("choose-category").selectedOptions[0].text} by ${$("choose-method").selectedOptions[0].text}`,
    x: { name: "score" },
    y: { name: "test images", range: [0, Math.max(...counts.flat(), 1) * 1.08], whole: true },
    bars,
    height: 170,
    rules: limit === Infinity ? [] : [{ x: limit, name: "threshold" }],
  };
}

// Points of curves over thresholds, from the highest score: one for each value that occurs.
function overThresholds(rows) {
  const falling = [...rows].sort((a, b) => b.score - a.score);
  const defects = rows.filter((row) => row.defective).length;
  const points = [];
  let hits = 0;
  falling.forEach((row, i) => {
    hits += row.defective;
    if (i + 1 < falling.length && falling[i + 1].score === row.score) return;
    points.push([
      (i + 1 - hits) / (rows.length - defects || 1),
      hits / (defects || 1),
      hits / (i + 1),
    ]);
  });
  const every = Math.ceil(points.length / 400);
  return points.filter((_, i) => i % every === 0 || i === points.length - 1);
}

function showCurves(section, category, method) {
  const { methods, categories, title } = data.choices[section];
  const subject = `${categories[category]}, ${title}`;
  const lines = (pointsOf) =>
    Object.entries(methods).flatMap(([label, name]) => {
      const points = pointsOf(label);
      return points
        ? [{ series: +label, name, x: points[0], y: points[1], strong: +label === method }]
        : [];
    });
  const unit = [0, 1];
  const charts = [];
  const add = (what, x, y, pointsOf, right = 1) => {
    const found = lines(pointsOf);
    if (found.length)
      charts.push({
        title: `${what} of ${subject}`,
        x: { name: x, range: [0, right] },
        y: { name: y, range: [0, 1.01] },
        lines: found,
      });
  };
  const both = Object.fromEntries(
    Object.keys(methods).map((label) => {
      const rows = scored(view.images, label);
      const kinds = new Set(rows.map((row) => row.defective));
      return [label, kinds.size === 2 ? overThresholds(rows) : null];
    }),
  );
  const column = (label, i) => both[label]?.map((point) => point[i]);
  add(
    "Precision and recall",
    "recall",
    "images: precision",
    (m) => both[m] && [column(m, 1), column(m, 2)],
  );
  add(
    "Image ROC",
    "false positive rate",
    "images: true positive rate",
    (m) =>
      both[m] && [
        [0, ...column(m, 0)],
        [0, ...column(m, 1)],
      ],
  );
  const pixels = data.curves[`${section}.${category}`] ?? {};
  add(
    "Pixel ROC",
    "false positive rate",
    "pixels: true positive rate",
    (m) => pixels[m] && [pixels[m].fpr, pixels[m].tpr],
  );
  add(
    "PRO",
    "false positive rate of pixels",
    "regions: mean overlap (PRO)",
    (m) => pixels[m] && [pixels[m].fpr, pixels[m].pro],
    0.3,
  );
  $("all-curves").hidden = !charts.length;
  $("curves").replaceChildren(...charts.map((chart) => figure(chart)));
}

function showDefects(limit) {
  const names = [
    ...new Set(view.rows.filter((row) => row.defective).map((row) => row.defect)),
  ].sort();
  $("defects").tBodies[0].replaceChildren(
    ...names.map((name) => {
      const of = view.rows.filter((row) => row.defective && row.defect === name);
      const found = of.filter((row) => row.score >= limit).length;
      const line = document.createElement("tr");
      line.append(Object.assign(named("th", name), { scope: "row" }));
      for (const [text, value] of [
        [of.length, of.length],
        [found, found],
        [percent(found, of.length), found / of.length],
      ]) {
        const cell = line.insertCell();
        cell.textContent = text;
        cell.dataset.sort = value;
      }
      return line;
    }),
  );
}

// All images as a table: searched, filtered, sorted.
let order = { column: 3, up: true };
function imageRows() {
  const [words, kind, defect] = ["search", "filter-verdict", "filter-defect"].map(
    (id) => $(id).value,
  );
  const limit = threshold();
  const rows = view.rows.map((row) => [
    row.key,
    row.defect,
    verdictOf(row.defective, row.score >= limit),
    row.score,
  ]);
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  const kept = rows.filter(
    ([key, name, verdict]) =>
      (!kind || verdict === kind) &&
      (!defect || name === defect) &&
      wanted.every((word) => key.toLowerCase().includes(word)),
  );
  const compare = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b));
  return kept.sort((a, b) => (order.up ? 1 : -1) * compare(a[order.column], b[order.column]));
}

function showImages() {
  const rows = imageRows();
  $("images").tBodies[0].replaceChildren(
    ...rows.slice(0, MOST_ROWS).map(([key, defect, verdict, score]) => {
      const line = document.createElement("tr");
      const head = Object.assign(named("th", ""), { scope: "row" });
      const picture = view.pictures.find((p) => p.key === key && panelOf(p) === view.panel);
      if (picture) {
        const button = named("button", key, "number");
        button.type = "button";
        button.addEventListener("click", () => enlarge(picture));
        head.append(button);
      } else head.textContent = key;
      line.append(
        head,
        named("td", defect, "words"),
        named("td", verdict, "words"),
        named("td", score.toPrecision(5)),
      );
      return line;
    }),
  );
  const more = rows.length - MOST_ROWS;
  $("image-count").textContent =
    `${rows.length} of ${view.rows.length} images` +
    (more > 0 ? `; the first ${MOST_ROWS} are shown, the CSV has all` : "");
}

function sortImages(button) {
  const header = button.closest("th");
  order = { column: header.cellIndex, up: turn(header) };
  showImages();
}
