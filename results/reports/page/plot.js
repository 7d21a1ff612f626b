// Charts: `plot` draws what charts.py describes, as an SVG as wide as a phone.

const WIDTH = 360;
const LONGEST = 19; // letters of a name
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
const short = (name) => (name.length > LONGEST ? `${name.slice(0, LONGEST - 1)}…` : name);

function draw(name, attributes, ...inside) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) element.setAttribute(key, value);
  }
  element.append(...inside.filter((part) => part !== null && part !== undefined));
  return element;
}

const words = (text, x, y, anchor = "start", more = {}) =>
  draw("text", { x, y, "text-anchor": anchor, fill: "currentColor", ...more }, text);

// Round steps, about so many, and how they are written.
function ticksOf([low, high], axis, count) {
  if (axis.log && high > 4 * low) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
      for (const step of [1, 2, 5]) found.push(step * 10 ** power);
    }
    const inside = found.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
    return inside.length > 7
      ? inside.filter((tick) => /^1(e|0*$)|^0?\.0*1$/.test(String(tick)))
      : inside;
  }
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const fits = [1, 2, 5, 10].map((step) => step * power).find((step) => step >= rough * 0.9);
  const step = axis.whole ? Math.max(1, fits) : fits;
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => +((first + i) * step).toPrecision(12));
}

const written = (tick) =>
  Math.abs(tick) >= 1e5 || (tick && Math.abs(tick) < 1e-3) ? tick.toExponential(0) : String(tick);

// The ends of an axis: given, or those of the values with some air.
function rangeOf(axis, values) {
  if (axis.range) return axis.range;
  const known = values.filter((value) => value !== null && Number.isFinite(value));
  let [low, high] = [Math.min(...known), Math.max(...known)];
  if (!known.length) [low, high] = [0, 1];
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
  const rows = chart.y.rows;
  const names = [...lines, ...bars].filter((mark) => mark.name);
  const legend = names.length > 1 && chart.legend !== false ? names : [];
  const columns = legend.some((mark) => mark.name.length > 15) ? 2 : 3;
  const left = rows
    ? 14 + 6.1 * Math.min(LONGEST, Math.max(...rows.map((name) => name.length)))
    : 44;
  const right = points.some((p) => p.label) ? 128 : points.some((p) => p.value) ? 44 : 12;
  const top = chart.y.name ? 26 : 10;
  const inside = rows ? 24 * rows.length : (chart.height ?? 200);
  const below = 44 + 15 * Math.ceil(legend.length / columns);
  const xs = [...lines, ...bars].flatMap((mark) => mark.x);
  xs.push(...points.flatMap((p) => [p.x, ...(p.ends ?? [])]));
  const ys = [...lines, ...bars].flatMap((mark) => mark.y).concat(points.map((p) => p.y));
  if (bars.length) ys.push(0);
  const xRange = rangeOf(chart.x, xs);
  const yRange = rows ? [rows.length - 0.4, -0.6] : rangeOf(chart.y, ys);
  const [bottom, end] = [top + inside, WIDTH - right];
  return {
    left,
    end,
    top,
    bottom,
    legend,
    columns,
    xRange,
    yRange,
    height: bottom + below,
    x: scaleOf(chart.x, xRange, left, end),
    y: scaleOf(chart.y, yRange, bottom, top),
  };
}

function axes(chart, frame) {
  const { left, end, top, bottom } = frame;
  const rule = { stroke: "var(--rule)", "stroke-width": 1 };
  const parts = [];
  for (const tick of ticksOf(frame.xRange, chart.x, 5)) {
    const x = frame.x(tick);
    parts.push(draw("line", { x1: x, x2: x, y1: top, y2: bottom, ...rule }));
    parts.push(words(written(tick), x, bottom + 14, "middle"));
  }
  if (chart.y.rows) {
    chart.y.rows.forEach((name, row) =>
      parts.push(words(short(name), left - 8, frame.y(row) + 4, "end")),
    );
  } else {
    for (const tick of ticksOf(frame.yRange, chart.y, 5)) {
      const y = frame.y(tick);
      parts.push(draw("line", { x1: left, x2: end, y1: y, y2: y, ...rule }));
      parts.push(words(written(tick), left - 5, y + 4, "end"));
    }
  }
  parts.push(words(chart.x.name, (left + end) / 2, bottom + 31, "middle"));
  if (chart.y.name) parts.push(words(chart.y.name, 2, 13, "start", { "font-weight": 600 }));
  return parts;
}

function legendOf(frame) {
  return frame.legend.flatMap((mark, number) => {
    const x = 2 + (number % frame.columns) * (WIDTH / frame.columns);
    const y = frame.bottom + 48 + 15 * Math.floor(number / frame.columns);
    const key = mark.fill
      ? draw("rect", { x, y: y - 9, width: 18, height: 9, fill: mark.fill, "fill-opacity": 0.6 })
      : draw("line", {
          x1: x,
          x2: x + 18,
          y1: y - 4,
          y2: y - 4,
          stroke: colour(mark.series),
          "stroke-width": 2.5,
          "stroke-dasharray": dash(mark.series),
        });
    return [key, words(short(mark.name), x + 23, y)];
  });
}

// Lines may leave the frame, so they are cut there; a missing value is a gap.
let clips = 0;
function linesOf(chart, frame, hot) {
  const id = `clip-${clips++}`;
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
  const cut = draw("rect", {
    x: left,
    y: top - 4,
    width: end - left + 1,
    height: bottom - top + 8,
  });
  return [draw("clipPath", { id }, cut), draw("g", { "clip-path": `url(#${id})` }, ...paths)];
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
  const parts = [];
  // Names stand in a column on the right, as near to the height of their points as they fit.
  let free = frame.top - 10;
  const falling = [...chart.points].sort((a, b) => frame.y(a.y) - frame.y(b.y));
  falling.forEach((point, number) => {
    const [x, y, paint] = [frame.x(point.x), frame.y(point.y), colour(point.series)];
    const stroke = { stroke: paint, "stroke-width": 2 };
    if (point.ends) {
      const [low, high] = point.ends.map(frame.x);
      parts.push(
        draw("path", {
          d: `M${low} ${y}H${high}M${low} ${y - 4}v8M${high} ${y - 4}v8`,
          fill: "none",
          ...stroke,
        }),
      );
    }
    parts.push(
      draw("path", {
        d: marker(point.series),
        transform: `translate(${x} ${y})`,
        fill: point.hollow ? "var(--paper)" : paint,
        ...stroke,
        "stroke-width": 1.6,
      }),
    );
    hot.push([x, y, point.tip]);
    if (point.value)
      parts.push(
        words(point.value, WIDTH - 4, y + 4, "end", { "font-weight": number ? 400 : 700 }),
      );
    if (!point.label) return;
    const most = frame.bottom - 13 * (falling.length - number - 1); // what the others still need
    free = Math.max(free + 13, Math.min(y, most));
    parts.push(
      draw("path", {
        d: `M${x + 6} ${y}L${frame.end + 4} ${free}`,
        stroke: paint,
        "stroke-width": 0.7,
        fill: "none",
      }),
    );
    parts.push(words(short(point.label), frame.end + 7, free + 4));
  });
  return parts;
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
      draw("line", {
        x1: at,
        x2: at,
        y1: frame.top - 2,
        y2: frame.bottom,
        stroke: "currentColor",
        "stroke-width": 1.5,
        "stroke-dasharray": "4 3",
      }),
    );
    parts.push(words(name, at + (late ? -5 : 5), frame.top + 9, late ? "end" : "start"));
  }
  if (chart.points) parts.push(...pointsOf(chart, frame, hot));
  parts.push(...legendOf(frame));
  const image = draw(
    "svg",
    {
      viewBox: `0 0 ${WIDTH} ${frame.height}`,
      role: "img",
      "aria-label": chart.title,
      class: "chart",
      "font-size": 11,
    },
    ...parts,
  );
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
  const nearest = hot.reduce((best, one) => (best && far(best) <= far(one) ? best : one), null);
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
  return text
    .replace(/var\((--\w+)\)/g, (_, name) => style.getPropertyValue(name))
    .replaceAll("currentColor", style.getPropertyValue("--ink"))
    .replace(
      "<svg",
      `<svg width="${WIDTH}" height="${height}" font-family="sans-serif" style="background:${style.getPropertyValue("--paper")}"`,
    );
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
