// Charts: `plot` draws what charts.py describes, as an SVG as wide as a phone.

const WIDTH = 360;
const LETTER = 6.1; // pixels of one, about
const MARKERS = [
  "M4 0A4 4 0 1 1-4 0A4 4 0 1 1 4 0",
  "M-3.5-3.5h7v7h-7z",
  "M0-5L5 0L0 5L-5 0z",
  "M0 4.5L-4.5-4h9z",
  "M0-4.5L4.5 4h-9z",
  "M-1.5-4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",
  "M-4-4L4 4M4-4L-4 4",
  "M0-5V5M-5 0H5",
];
const DASHES = ["none", "7 3", "2 3"];
const colour = (series) => `var(--s${series % 8})`;
// Colours repeat from the ninth method on, with other markers and dashes.
const marker = (series) => MARKERS[(series + 3 * (series >> 3)) % 8];
const dash = (series) => DASHES[(series >> 2) % DASHES.length];
const written = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 4 });

function draw(name, attributes, ...inside) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...inside);
  return element;
}

const words = (text, x, y, anchor = "start", more = {}) =>
  draw("text", { x, y, "text-anchor": anchor, fill: "currentColor", ...more }, text);

// A name in whole: one that is too long is drawn narrower.
function nameAt(name, x, y, room) {
  const narrower = { textLength: room, lengthAdjust: "spacingAndGlyphs" };
  return words(name, x, y, "start", name.length * LETTER > room ? narrower : {});
}

// Round steps, about so many.
function ticksOf([low, high], axis, count) {
  if (axis.log && high > 4 * low) {
    const first = Math.floor(Math.log10(low));
    const length = Math.ceil(Math.log10(high)) - first + 1;
    const powers = Array.from({ length }, (_, i) => first + i);
    const steps = powers.length > 3 ? [1] : [1, 2, 5];
    return powers
      .flatMap((power) => steps.map((step) => step * 10 ** power))
      .filter((tick) => tick >= low && tick <= high);
  }
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const fits = [1, 2, 5, 10].map((step) => step * power).find((step) => step >= rough * 0.9);
  const step = axis.whole ? Math.max(1, fits) : fits;
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => +((first + i) * step).toPrecision(12));
}

// The ends of an axis: given, or those of the values with some air.
function rangeOf(axis, values) {
  if (axis.range) return axis.range;
  const known = values.filter((value) => value !== null);
  if (!known.length) return [0, 1];
  const [low, high] = [Math.min(...known), Math.max(...known)];
  if (axis.log) return low === high ? [low / 2, high * 2] : [low / 1.15, high * 1.15];
  const air = low === high ? Math.abs(low) * 0.05 || 0.5 : 0.07 * (high - low);
  const [least, most] = axis.limits ?? [-Infinity, Infinity];
  return [Math.max(least, low - air), Math.min(most, high + air)];
}

function scaleOf(axis, [low, high], from, to) {
  const at = axis.log ? Math.log : (value) => value;
  return (value) => from + ((at(value) - at(low)) / (at(high) - at(low))) * (to - from);
}

// Where things lie, and how values become pixels.
function frameOf(chart) {
  const { lines = [], points = [], bars = [] } = chart;
  const { rows } = chart.y;
  const named = [...lines, ...bars, ...points].filter((mark) => mark.name);
  const legend = named.length > 1 && chart.legend !== false ? named : [];
  const longest = Math.max(0, ...legend.map((mark) => mark.name.length));
  const columns = Math.min(3, Math.max(1, Math.floor(WIDTH / (27 + LETTER * longest))));
  const [left, end] = rows ? [12, WIDTH - 44] : [44, WIDTH - 12];
  const top = chart.y.name ? 26 : 10;
  const bottom = top + (rows ? 34 * rows.length : (chart.height ?? 200));
  const xs = [...lines, ...bars].flatMap((mark) => mark.x);
  xs.push(...points.flatMap((p) => [p.x, ...(p.ends ?? [])]));
  const ys = [...lines, ...bars].flatMap((mark) => mark.y).concat(points.map((p) => p.y));
  if (bars.length) ys.push(0);
  const xRange = rangeOf(chart.x, xs);
  const yRange = rows ? [rows.length - 0.6, -0.8] : rangeOf(chart.y, ys);
  return {
    left,
    end,
    top,
    bottom,
    legend,
    columns,
    xRange,
    yRange,
    height: bottom + 44 + 15 * Math.ceil(legend.length / columns),
    x: scaleOf(chart.x, xRange, left, end),
    y: scaleOf(chart.y, yRange, bottom, top),
  };
}

function axes(chart, frame) {
  const { left, end, top, bottom } = frame;
  const stroke = "var(--rule)";
  const parts = [];
  for (const tick of ticksOf(frame.xRange, chart.x, 5)) {
    const x = frame.x(tick);
    parts.push(draw("line", { x1: x, x2: x, y1: top, y2: bottom, stroke }));
    parts.push(words(written.format(tick), x, bottom + 14, "middle"));
  }
  chart.y.rows?.forEach((name, row) => parts.push(nameAt(name, 2, frame.y(row) - 10, WIDTH - 6)));
  for (const tick of chart.y.rows ? [] : ticksOf(frame.yRange, chart.y, 5)) {
    const y = frame.y(tick);
    parts.push(draw("line", { x1: left, x2: end, y1: y, y2: y, stroke }));
    parts.push(words(written.format(tick), left - 5, y + 4, "end"));
  }
  parts.push(words(chart.x.name, (left + end) / 2, bottom + 31, "middle"));
  if (chart.y.name) parts.push(words(chart.y.name, 2, 13, "start", { "font-weight": 600 }));
  return parts;
}

function legendOf(frame) {
  const room = WIDTH / frame.columns;
  return frame.legend.flatMap((mark, number) => {
    const x = 2 + (number % frame.columns) * room;
    const y = frame.bottom + 48 + 15 * Math.floor(number / frame.columns);
    return [keyOf(mark, x, y - 4), nameAt(mark.name, x + 23, y, room - 27)];
  });
}

// What a legend shows of a mark: its bar, its marker or its line.
function keyOf(mark, x, y) {
  if (mark.fill)
    return draw("path", { d: `M${x} ${y - 5}h18v9h-18z`, fill: mark.fill, "fill-opacity": 0.6 });
  if (!Array.isArray(mark.x)) return markerAt(mark, x + 9, y);
  return draw("path", {
    d: `M${x} ${y}h18`,
    stroke: colour(mark.series),
    "stroke-width": 2.5,
    "stroke-dasharray": dash(mark.series),
  });
}

const markerAt = ({ series, hollow }, x, y) =>
  draw("path", {
    d: marker(series),
    transform: `translate(${x} ${y})`,
    fill: hollow ? "var(--paper)" : colour(series),
    stroke: colour(series),
    "stroke-width": 1.6,
  });

// Lines may leave the frame, so they are cut there; a missing value is a gap.
function linesOf(chart, frame, hot) {
  const { left, end, top, bottom } = frame;
  const paths = chart.lines.map((line) => {
    let pen = "M";
    const steps = line.x.map((x, i) => {
      if (line.y[i] === null) return (pen = "M") && "";
      const [px, py] = [frame.x(x), frame.y(line.y[i])];
      if (px <= end + 1)
        hot.push([px, py, `${line.name}: ${+line.y[i].toPrecision(4)} at ${+x.toPrecision(4)}`]);
      const step = `${pen}${px.toFixed(1)} ${py.toFixed(1)}`;
      pen = "L";
      return step + (line.marked ? "m-2.5 0a2.5 2.5 0 1 0 5 0a2.5 2.5 0 1 0-5 0m2.5 0" : "");
    });
    return draw("path", {
      d: steps.join(""),
      fill: "none",
      stroke: colour(line.series),
      "stroke-width": line.strong ? 3 : 1.7,
      "stroke-dasharray": dash(line.series),
    });
  });
  const [x, y, width, height] = [left, top - 4, end - left + 1, bottom - top + 8];
  return [draw("svg", { x, y, width, height, viewBox: `${x} ${y} ${width} ${height}` }, ...paths)];
}

// A histogram as steps: where two overlap, both borders are seen.
function barsOf(chart, frame, hot) {
  return chart.bars.map((bars) => {
    const steps = bars.y.map((count, i) => {
      const [from, to] = [bars.x[i], bars.x[i + 1]];
      const [left, right, top] = [frame.x(from), frame.x(to), frame.y(count)];
      if (count)
        hot.push([
          (left + right) / 2,
          top,
          `${bars.name}: ${count} images from ${from.toPrecision(4)} to ${to.toPrecision(4)}`,
        ]);
      return `${i ? "" : `M${left} ${frame.bottom}`}V${top}H${right}`;
    });
    return draw("path", {
      d: `${steps.join("")}V${frame.bottom}Z`,
      fill: bars.fill,
      "fill-opacity": 0.35,
      stroke: bars.fill,
      "stroke-width": 1.5,
    });
  });
}

function pointsOf(chart, frame, hot) {
  return chart.points.flatMap((point) => {
    const [x, y] = [frame.x(point.x), frame.y(point.y)];
    const [low, high] = point.ends?.map(frame.x) ?? [x, x];
    const weight = { "font-weight": point.strong ? 700 : 400 };
    hot.push([x, y, point.tip]);
    return [
      draw("path", {
        d: point.ends ? `M${low} ${y}H${high}M${low} ${y - 4}v8M${high} ${y - 4}v8` : "",
        stroke: colour(point.series),
        "stroke-width": 2,
      }),
      markerAt(point, x, y),
      words(point.value ?? "", WIDTH - 4, y + 4, "end", weight),
    ];
  });
}

function plot(chart) {
  const frame = frameOf(chart);
  const hot = []; // pixels and words of what a pointer can find
  const parts = axes(chart, frame);
  if (chart.bars) parts.push(...barsOf(chart, frame, hot));
  if (chart.lines) parts.push(...linesOf(chart, frame, hot));
  for (const { x, name } of chart.rules ?? []) {
    const at = frame.x(x);
    const late = at > (frame.left + frame.end) / 2;
    parts.push(
      draw("path", {
        d: `M${at} ${frame.top - 2}V${frame.bottom}`,
        stroke: "currentColor",
        "stroke-width": 1.5,
        "stroke-dasharray": "4 3",
      }),
    );
    parts.push(words(name, at + (late ? -5 : 5), frame.top + 9, late ? "end" : "start"));
  }
  if (chart.points) parts.push(...pointsOf(chart, frame, hot));
  parts.push(...legendOf(frame));
  const viewBox = `0 0 ${WIDTH} ${frame.height}`;
  const name = { role: "img", "aria-label": chart.title, class: "chart" };
  const image = draw("svg", { viewBox, "font-size": 11, ...name }, ...parts);
  image.addEventListener("pointermove", (event) => point(event, image, hot));
  image.addEventListener("pointerleave", () => (tip.hidden = true));
  return image;
}

// What lies nearest to the pointer is told beside it.
const tip = document.getElementById("tip");
function point(event, image, hot) {
  const box = image.getBoundingClientRect();
  const scale = WIDTH / box.width;
  const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  const far = ([px, py]) => Math.hypot(px - x, py - y);
  const [nearest] = hot.toSorted((a, b) => far(a) - far(b));
  tip.hidden = !nearest || far(nearest) > 22;
  if (tip.hidden) return;
  tip.textContent = nearest[2];
  tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${event.clientY + 16}px`;
}

// The SVG alone: the page's colours are written into it.
function standalone(image) {
  const copy = image.cloneNode(true);
  const style = getComputedStyle(document.documentElement);
  const text = new XMLSerializer().serializeToString(copy);
  const { height } = image.viewBox.baseVal;
  const paper = `style="background:${style.getPropertyValue("--paper")}"`;
  return text
    .replace(/var\((--\w+)\)/g, (_, name) => style.getPropertyValue(name))
    .replaceAll("currentColor", style.getPropertyValue("--ink"))
    .replace("<svg", `<svg width="${WIDTH}" height="${height}" font-family="sans-serif" ${paper}`);
}

function save(name, url) {
  const link = document.createElement("a");
  link.download = name.replace(/[^\w.-]+/g, "_").slice(-120);
  link.href = url;
  link.click();
}

async function saveChart(image, kind) {
  const name = `${image.getAttribute("aria-label")}.${kind}`;
  const url = `data:image/svg+xml,${encodeURIComponent(standalone(image))}`;
  if (kind === "svg") return save(name, url);
  const picture = new Image();
  picture.src = url;
  await picture.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [3 * picture.width, 3 * picture.height];
  canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
  save(name, canvas.toDataURL("image/png"));
}

// A figure with a chart, what it shows, and its downloads.
function figure(chart, caption = "") {
  const element = document.createElement("figure");
  element.append(plot(chart));
  const below = document.createElement("figcaption");
  below.append(caption, " ");
  for (const kind of ["svg", "png"]) {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", className: "save", textContent: kind.toUpperCase() });
    button.setAttribute("aria-label", `Save as ${kind.toUpperCase()}: ${chart.title}`);
    button.addEventListener("click", () => saveChart(element.querySelector("svg"), kind));
    below.append(button);
  }
  element.append(below);
  return element;
}
