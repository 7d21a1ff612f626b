// Pictures: an image with the outline of its defect, and the anomaly map over it. Maps are grey;
// SVG filters colour them, and draw the outline of a mask.
//
// A map is coloured by where it lies between the median of its category (clear), the method's
// threshold (from here on orange) and the highest kept value (yellow).

const panelOf = ({ section, category, label }) => `${section}.${category}.${label}`;

// [red, green, blue, opacity] at a share: 0 the median, 1 the threshold, 2 the highest value. The
// style of `.heat-legend i` shows the same.
function heat(share) {
  if (share < 1) return [96, 72, 200, 0.45 * Math.max(0, share) ** 2];
  const up = Math.min(share - 1, 1);
  return [255, 90 + 140 * up, 20 + 60 * up, 0.62 + 0.23 * up];
}

// The filter that colours the maps of a panel, which share a scale.
function colouring(picture) {
  const id = `heat${panelOf(picture).replaceAll(".", "_")}`;
  if ($(id)) return `url(#${id})`;
  const { low, high } = picture;
  const level = Math.max(picture.level, low + 1e-12); // above it a pixel is an alarm
  const colours = Array.from({ length: 256 }, (_, grey) => {
    const value = low + (grey / 255) * (high - low);
    return heat(
      value < level
        ? (value - low) / (level - low)
        : 1 + (value - level) / Math.max(high - level, 1e-12),
    );
  });
  // Each grey level becomes the value that `of` takes from its colour.
  const table = (of, result) => {
    const functions = [..."RGB"].map((channel, i) => {
      const tableValues = colours.map((colour) => of(colour, i)).join(" ");
      return draw(`feFunc${channel}`, { type: "table", tableValues });
    });
    return draw("feComponentTransfer", { in: "SourceGraphic", result }, ...functions);
  };
  $("filters").append(
    draw(
      "filter",
      { id, x: 0, y: 0, width: 1, height: 1, "color-interpolation-filters": "sRGB" },
      table((colour, i) => colour[i] / 255, "paint"),
      table((colour) => colour[3], "grey"),
      draw("feColorMatrix", { in: "grey", type: "luminanceToAlpha", result: "opacity" }),
      draw("feComposite", { in: "paint", in2: "opacity", operator: "in" }),
    ),
  );
  return `url(#${id})`;
}

// A picture: the image alone, or with its map over it; its defect is outlined.
function shown(picture, what) {
  const layers = named("span", "", "layers");
  layers.setAttribute("role", "img");
  const marked = picture.mask === undefined ? "" : ", its defect outlined";
  layers.setAttribute(
    "aria-label",
    what === "map"
      ? `anomaly map of ${picture.key} by ${data.labels[picture.label]}`
      : picture.key + marked,
  );
  const add = (file, filter) => {
    const image = Object.assign(new Image(), { alt: "" });
    image.src = `data:image/webp;base64,${data.files[file]}`;
    image.style.filter = filter;
    layers.append(image);
  };
  add(picture.image, "none");
  if (what === "map") add(picture.map, colouring(picture));
  if (picture.mask !== undefined) add(picture.mask, "url(#outline)");
  return layers;
}

// What the colours mean.
function legendBar(picture) {
  const bar = named("p", "", "heat-legend");
  const why = data.held.includes(panelOf(picture))
    ? "5 % of normal images at most exceed it anywhere, by held-out ones"
    : "so many test images reach it as are called defective where F1 is highest";
  bar.append(
    named("span", "below the threshold"),
    named("i"),
    named("span", "above it: marked as defective"),
    named("span", `Threshold of a map: ${why}.`),
  );
  return bar;
}
