// The pictures of the chosen category: as a gallery, enlarged, and as all methods see one image.

const kindOf = ({ defective, defect }) =>
  !defective ? "normal" : defect === "defective" ? defect : `defective: ${defect}`;

// A button with the image and its map, and below it what became of it.
function galleryFigure(picture) {
  const element = document.createElement("figure");
  const button = named("button", "", "zoom");
  button.type = "button";
  button.append(canvasOf(picture, "image"), canvasOf(picture, "map"));
  button.addEventListener("click", () => enlarge(picture));
  const below = document.createElement("figcaption");
  const verdict = named("b", "", "verdict");
  const facts = ` score ${picture.score.toPrecision(4)}, ${kindOf(picture)}`;
  below.append(verdict, facts, document.createElement("br"), named("code", picture.key));
  element.append(button, below);
  return { picture, element, verdict };
}

// Under a limit, or null for one above all scores; nothing where there is none, as without scores.
function judge({ picture, verdict }, limit) {
  const text =
    limit === undefined
      ? ""
      : verdictOf(picture.defective, limit !== null && picture.score >= limit);
  verdict.textContent = text;
  verdict.className =
    text && `verdict ${text === "missed" || text === "false alarm" ? "wrong" : "right"}`;
  return text;
}

const TITLES = {
  missed: "Missed defects",
  "false alarm": "False alarms",
  found: "Found defects",
  passed: "Normal images that passed",
  "": "Images",
};

function showGallery(limit) {
  const groups = new Map(Object.keys(TITLES).map((name) => [name, []]));
  for (const one of view.figures) groups.get(judge(one, limit)).push(one);
  const filled = [...groups].filter(([, members]) => members.length);
  view.order = filled.flatMap(([, members]) => members.map((one) => one.picture));
  $("gallery").replaceChildren(
    ...filled.flatMap(([name, members]) => {
      const row = named("div", "", "gallery");
      row.append(...members.map((one) => one.element));
      return [named("h4", TITLES[name]), row];
    }),
  );
}

// One image as all methods see it.
function besideOf(key, side) {
  const pictures = view.pictures.filter((picture) => picture.key === key);
  const { ranked } = data.choices[pictures[0].section];
  const best = [...pictures].sort((a, b) => ranked.indexOf(a.label) - ranked.indexOf(b.label));
  const shown = (canvas, caption) => {
    const element = document.createElement("figure");
    element.append(canvas, caption);
    return element;
  };
  const first = named("figcaption", kindOf(best[0]));
  return [
    shown(canvasOf(best[0], "image", side), first),
    ...best.map((picture) => {
      const caption = named("figcaption", `${data.labels[picture.label]} `);
      const verdict = named("b", "");
      judge({ picture, verdict }, data.starts[panelOf(picture)]);
      caption.append(verdict);
      return shown(canvasOf(picture, "map", side), caption);
    }),
  ];
}

function chooseImage() {
  const counts = new Map();
  for (const { key } of view.pictures) counts.set(key, (counts.get(key) ?? 0) + 1);
  const keys = [...counts]
    .filter(([, count]) => count > 1)
    .sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0]));
  options(
    $("choose-image"),
    keys.map(([key, count]) => [key, `${key} (${count} methods)`]),
  );
  const defect = keys.find(([key]) => view.pictures.some((p) => p.key === key && p.defective));
  if (defect) $("choose-image").value = defect[0];
  $("side-by-side").hidden = !keys.length;
  showBeside();
}

function showBeside() {
  const key = $("choose-image").value;
  $("beside").replaceChildren(...(key ? besideOf(key, SHARPEST) : []));
}

function enlarge(picture) {
  view.enlarged = picture;
  $("viewer-title").textContent = picture.key;
  const limit = data.starts[panelOf(picture)];
  $("viewer-facts").textContent =
    `${data.labels[picture.label]}: score ${picture.score.toPrecision(4)}` +
    (typeof limit === "number" ? `, called defective from ${limit.toPrecision(4)}` : "");
  const mine = [canvasOf(picture, "image", 640), canvasOf(picture, "map", 640)];
  $("viewer-large").replaceChildren(...mine);
  const others = view.pictures.filter((p) => p.key === picture.key).length > 1;
  $("viewer-beside").replaceChildren(...(others ? besideOf(picture.key, SHARPEST).slice(1) : []));
  $("viewer-legend").replaceChildren(legendBar(picture));
  if (!$("viewer").open) $("viewer").showModal();
}

function nextPicture(step) {
  const { order, enlarged } = view;
  if (order.includes(enlarged))
    enlarge(order[(order.indexOf(enlarged) + step + order.length) % order.length]);
}
