// One category: its charts, pictures and images, and what a threshold would do.

const chosen = () =>
  ["section", "category", "method"].map((name) => Number($(`choose-${name}`).value));
const named = (tag, text = "", className = "") =>
  Object.assign(document.createElement(tag), { textContent: text, className });
const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)} %` : "–");
const VERDICTS = ["missed", "false alarm", "alarm", "passed"];
const verdictOf = (defective, called) => VERDICTS[called ? (defective ? 2 : 1) : defective ? 0 : 3];
const MOST_ROWS = 200;
const BINS = 32;

let view = null; // rows, steps, pictures and figures of the chosen category and method

function options(select, entries) {
  const before = select.value;
  select.replaceChildren(...entries.map(([value, text]) => new Option(text, value)));
  if (entries.some(([value]) => String(value) === before)) select.value = before;
}

// The images of a category with their scores by a method; of the pooled one those of all.
function scored(section, category, label) {
  const { categories, pooled } = data.choices[section];
  if (pooled && category === categories.length - 1)
    return categories.slice(0, -1).flatMap((_, i) => scored(section, i, label));
  const images = data.images[`${section}.${category}`];
  const rows = (images?.scores[label] ?? []).map((score, i) => ({
    key: images.keys[i],
    defect: images.defects[i],
    defective: !!images.defective[i],
    score,
  }));
  return rows.filter(({ score }) => score !== null); // null: this method lacks the image
}

function choose() {
  const [section, category, method] = chosen();
  const { title, categories, methods } = data.choices[section];
  const rows = scored(section, category, method);
  const pictures = data.pictures.filter((p) => p.section === section && p.category === category);
  const steps = [...new Set(rows.map((row) => row.score))].sort((a, b) => a - b);
  view = {
    rows,
    pictures,
    steps: [...steps, Infinity],
    panel: `${section}.${category}.${method}`,
    subject: `${categories[category]} by ${methods[method]}, ${title}`,
  };
  for (const part of all(".with-scores")) part.hidden = !rows.length;
  const missing = data.choices[section].missing[category];
  $("missing").textContent = missing && `No ${missing}.`;
  view.figures = pictures.filter((p) => p.label === method).map(galleryFigure);
  $("pictures").hidden = !view.figures.length;
  const [first] = view.figures;
  $("heat-legend").replaceChildren(...(first ? [legendBar(first.picture)] : []));
  showCurves(section, category, method);
  $("threshold").max = steps.length;
  $("threshold").value = view.steps.indexOf(data.starts[view.panel] ?? Infinity);
  $("starts-calibrated").hidden = !data.held.includes(view.panel);
  $("starts-best").hidden = data.held.includes(view.panel);
  move();
}

const threshold = () => view.steps[$("threshold").value];

function move() {
  const limit = threshold();
  const found = Object.groupBy(view.rows, (row) => verdictOf(row.defective, row.score >= limit));
  const [misses, alarms, hits, passed] = VERDICTS.map((name) => found[name]?.length ?? 0);
  const words = limit === Infinity ? "none: above all scores" : limit.toPrecision(5);
  $("threshold-value").textContent = words;
  $("threshold").setAttribute("aria-valuetext", words);
  for (const [id, number] of Object.entries({ hits, misses, alarms, passed }))
    $(id).textContent = number;
  // What calls all images defective tells nothing about any.
  const blind = hits > 0 && alarms > 0 && !misses && !passed;
  $("rates").textContent = blind
    ? "This threshold calls every image defective: it tells nothing apart."
    : `F1 ${percent(2 * hits, 2 * hits + alarms + misses)}, ` +
      `recall ${percent(hits, hits + misses)}, precision ${percent(hits, hits + alarms)}, ` +
      `false alarms on ${percent(alarms, alarms + passed)} of normal images`;
  if (view.rows.length) $("histogram").replaceChildren(figure(histogram(limit)));
  showDefects(limit);
  showGallery(view.rows.length && !blind ? limit : undefined);
  showImages();
}

function histogram(limit) {
  const [low, high] = [view.steps[0], view.steps.at(-2)];
  const width = (high - low) / BINS || 1;
  const x = Array.from({ length: BINS + 1 }, (_, i) => low + i * width);
  const bars = ["normal", "defective"].map((name, kind) => {
    const y = new Array(BINS).fill(0);
    for (const { score } of view.rows.filter((row) => +row.defective === kind))
      y[Math.min(BINS - 1, Math.floor((score - low) / width))]++;
    return { name, fill: `var(--${name})`, x, y };
  });
  const most = Math.max(1, ...bars.flatMap(({ y }) => y));
  return {
    title: `Scores of ${view.subject}`,
    x: { name: "score" },
    y: { name: "test images", range: [0, 1.08 * most], whole: true },
    bars,
    height: 170,
    rules: limit === Infinity ? [] : [{ x: limit, name: "threshold" }],
  };
}

// Curves over thresholds, from the highest score: a point for each value that occurs.
function overThresholds(rows) {
  const falling = rows.toSorted((a, b) => b.score - a.score);
  const defects = rows.filter((row) => row.defective).length;
  const normals = rows.length - defects;
  if (!defects || !normals) return undefined;
  let hits = 0;
  const points = falling.flatMap((row, i) => {
    hits += row.defective;
    if (falling[i + 1]?.score === row.score) return [];
    return [[(i + 1 - hits) / normals, hits / defects, hits / (i + 1)]];
  });
  const every = Math.ceil(points.length / 400);
  const kept = points.filter((_, i) => i % every === 0 || i === points.length - 1);
  const column = (i, first) => [first, ...kept.map((point) => point[i])];
  return { fpr: column(0, 0), recall: column(1, 0), precision: column(2, null) };
}

function showCurves(section, category, method) {
  const { methods, categories, title } = data.choices[section];
  const pixels = data.curves[`${section}.${category}`] ?? {};
  const images = Object.fromEntries(
    Object.keys(methods).map((label) => [label, overThresholds(scored(section, category, label))]),
  );
  const rate = "false positive rate";
  const charts = [
    ["Precision and recall", images, "recall", "recall", "precision", "images: precision"],
    ["Image ROC", images, "fpr", rate, "recall", "images: true positive rate"],
    ["Pixel ROC", pixels, "fpr", rate, "tpr", "pixels: true positive rate"],
    ["PRO", pixels, "fpr", `${rate} of pixels`, "pro", "regions: mean overlap (PRO)", 0.3],
  ].map(([what, curves, across, x, up, y, right = 1]) => ({
    title: `${what} of ${categories[category]}, ${title}`,
    x: { name: x, range: [0, right] },
    y: { name: y, range: [0, 1.01] },
    lines: Object.entries(methods).flatMap(([label, name]) => {
      const curve = curves[label];
      const strong = +label === method;
      return curve ? [{ series: +label, name, x: curve[across], y: curve[up], strong }] : [];
    }),
  }));
  const drawn = charts.filter((chart) => chart.lines.length);
  $("all-curves").hidden = !drawn.length;
  $("curves").replaceChildren(...drawn.map((chart) => figure(chart)));
}

function showDefects(limit) {
  const defective = view.rows.filter((row) => row.defective);
  const groups = Object.entries(Object.groupBy(defective, (row) => row.defect)).sort();
  $("defects").tBodies[0].replaceChildren(
    ...groups.map(([name, rows]) => {
      const called = rows.filter((row) => row.score >= limit).length;
      const line = document.createElement("tr");
      line.append(Object.assign(named("th", name), { scope: "row" }));
      for (const [text, value] of [
        [rows.length, rows.length],
        [called, called],
        [percent(called, rows.length), called / rows.length],
      ]) {
        const cell = line.insertCell();
        cell.textContent = text;
        cell.dataset.sort = value;
      }
      return line;
    }),
  );
}

// All images as a table: name, defect, verdict and score, searched and sorted.
function imageRows() {
  const limit = threshold();
  const rows = view.rows.map((row) => [
    row.key,
    row.defect,
    verdictOf(row.defective, row.score >= limit),
    row.score,
  ]);
  const wanted = $("search").value.toLowerCase().split(/\s+/);
  const kept = rows.filter((row) => {
    const text = row.slice(0, 3).join(" ").toLowerCase();
    return wanted.every((word) => text.includes(word));
  });
  const header = $("images").querySelector("[aria-sort]");
  const compare = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b));
  const sign = header.ariaSort === "ascending" ? 1 : -1;
  return kept.sort((a, b) => sign * compare(a[header.cellIndex], b[header.cellIndex]));
}

function showImages() {
  const rows = imageRows();
  $("images").tBodies[0].replaceChildren(
    ...rows.slice(0, MOST_ROWS).map(([key, defect, verdict, score]) => {
      const line = document.createElement("tr");
      const head = Object.assign(named("th", ""), { scope: "row" });
      const picture = view.figures.find((one) => one.picture.key === key)?.picture;
      const name = named(picture ? "button" : "span", key, picture ? "number" : "");
      if (picture) name.addEventListener("click", () => enlarge(picture));
      head.append(name);
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
