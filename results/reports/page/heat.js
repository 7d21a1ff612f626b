// Pictures: an image with the outline of its defect, and the anomaly map over it.
//
// A map is coloured by where it lies between the median of its category (clear), the method's
// threshold (from here on orange) and the highest kept value (yellow).

const SHARPEST = 256; // pixels of a picture in the page; a larger one is drawn where it is enlarged

const loaded = new Map();
function load(number) {
  if (!loaded.has(number)) {
    const image = new Image();
    image.src = `data:image/webp;base64,${data.files[number]}`;
    loaded.set(
      number,
      image.decode().then(() => image),
    );
  }
  return loaded.get(number);
}

// Above which value of its map a pixel of a picture is an alarm.
const panelOf = ({ section, category, label }) => `${section}.${category}.${label}`;
const levelOf = (picture) => data.held[panelOf(picture)]?.[1] ?? picture.level;

function grey(image, side, filter = "none") {
  const canvas = new OffscreenCanvas(side, side);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  Object.assign(context, { imageSmoothingQuality: "high", filter });
  context.drawImage(image, 0, 0, side, side);
  return context.getImageData(0, 0, side, side).data;
}

// [red, green, blue, opacity] at a share: 0 the median, 1 the threshold, 2 the highest value.
function heat(share) {
  if (share < 1) return [96, 72, 200, 0.45 * Math.max(0, share) ** 2];
  const up = Math.min(share - 1, 1);
  return [255, 90 + 140 * up, 20 + 60 * up, 0.62 + 0.23 * up];
}

function cover(context, values, side, picture) {
  const { low, high } = picture;
  const level = Math.max(levelOf(picture), low + 1e-12);
  const painted = context.createImageData(side, side);
  for (let i = 0; i < values.length; i += 4) {
    const value = low + (values[i] / 255) * (high - low);
    const share =
      value < level
        ? (value - low) / (level - low)
        : 1 + (value - level) / Math.max(high - level, 1e-12);
    const [red, green, blue, opacity] = heat(share);
    painted.data.set([red, green, blue, 255 * opacity], i);
  }
  const layer = new OffscreenCanvas(side, side);
  layer.getContext("2d").putImageData(painted, 0, 0);
  context.drawImage(layer, 0, 0);
}

// A white line with a dark rim around the mask, to be seen on any image. A little way off: it must
// not hide a thin defect.
function outline(context, mask, side) {
  const values = grey(mask, side, `blur(${side / 100}px)`);
  const inside = (x, y) =>
    x >= 0 && y >= 0 && x < side && y < side && values[4 * (y * side + x)] > 12;
  const border = [];
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const within = inside(x - 1, y) && inside(x + 1, y) && inside(x, y - 1) && inside(x, y + 1);
      if (inside(x, y) && !within) border.push([x, y]);
    }
  }
  const wide = Math.max(1, Math.round(side / 400));
  for (const [paint, reach] of [
    ["rgb(0 0 0 / .7)", 2 * wide],
    ["#fff", wide],
  ]) {
    context.fillStyle = paint;
    for (const [x, y] of border)
      context.fillRect(x - reach / 2, y - reach / 2, reach + 1, reach + 1);
  }
}

// A canvas that is being drawn: the image alone, or with its map.
function canvasOf(picture, what, side = SHARPEST) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [side, side];
  canvas.setAttribute("role", "img");
  const marked = picture.mask === undefined ? "" : ", its defect outlined";
  canvas.setAttribute(
    "aria-label",
    what === "map"
      ? `anomaly map of ${picture.key} by ${data.labels[picture.label]}`
      : picture.key + marked,
  );
  canvas.drawn = paintOn(canvas, picture, what, side);
  return canvas;
}

async function paintOn(canvas, picture, what, side) {
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(await load(picture.image), 0, 0, side, side);
  if (what === "map") cover(context, grey(await load(picture.map), side), side, picture);
  if (picture.mask !== undefined) outline(context, await load(picture.mask), side);
}

// What the colours mean.
function legendBar(picture) {
  const bar = document.createElement("p");
  bar.className = "heat-legend";
  const stops = Array.from({ length: 21 }, (_, i) => {
    const [red, green, blue, opacity] = heat(i / 10);
    return `rgb(${red} ${green} ${blue} / ${opacity}) ${5 * i}%`;
  });
  stops.splice(10, 0, `rgb(96 72 200 / .45) 50%`);
  const scale = document.createElement("i");
  scale.style.background = `linear-gradient(90deg, ${stops.join(", ")}), #888`;
  const [below, above] = ["below the threshold", "above it: marked as defective"].map((text) => {
    const span = document.createElement("span");
    span.textContent = text;
    return span;
  });
  const calibrated = panelOf(picture) in data.held;
  const why = document.createElement("span");
  why.textContent = calibrated
    ? "Threshold of a map: 5 % of normal images at most exceed it anywhere, by held-out ones."
    : "Threshold of a map: so many test images reach it as are called defective where F1 is highest.";
  bar.append(below, scale, above, why);
  return bar;
}
