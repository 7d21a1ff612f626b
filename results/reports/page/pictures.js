// The pictures of the chosen category: as a gallery, and enlarged beside those of other methods.

const kindOf = ({ defective, defect }) =>
  !defective ? "normal" : defect === "defective" ? defect : `defective: ${defect}`;

// A button with the image and its map, and below it what became of it.
function galleryFigure(picture) {
  const element = document.createElement("figure");
  const button = named("button", "", "zoom");
  button.type = "button";
  button.append(shown(picture, "image"), shown(picture, "map"));
  button.addEventListener("click", () => enlarge(picture));
  const below = document.createElement("figcaption");
  const verdict = named("b", "", "verdict");
  const facts = ` score ${picture.score.toPrecision(4)}, ${kindOf(picture)}`;
  below.append(verdict, facts, document.createElement("br"), named("code", picture.key));
  element.append(button, below);
  return { picture, element, verdict };
}

// The first limit of a picture's panel; none where it calls every image defective.
function startOf(picture) {
  const panel = panelOf(picture);
  return data.blind.includes(panel) ? undefined : data.starts[panel];
}

// Under a limit, or null for one above all scores; nothing where there is none, as without scores.
// A defect is found where the map is highest, not by a score alone.
function judge({ picture, verdict }, limit) {
  const called = limit !== null && picture.score >= limit;
  const places = { true: "found", false: "alarm for another place" };
  let text = limit === undefined ? "" : verdictOf(picture.defective, called);
  if (text === "alarm") text = places[picture.on_defect] ?? text;
  verdict.textContent = text;
  const right = ["found", "alarm", "passed"].includes(text);
  verdict.className = text && `verdict ${right ? "right" : "wrong"}`;
  return text;
}

const TITLES = {
  missed: "Missed defects",
  "false alarm": "False alarms",
  "alarm for another place": "Alarms for another place than the defect",
  found: "Found defects",
  alarm: "Defects with an alarm; there is no mask of where they are",
  passed: "Normal images that passed",
  "": "Images",
};

function showGallery(limit) {
  const groups = Object.groupBy(view.figures, (one) => judge(one, limit));
  const names = Object.keys(TITLES).filter((name) => groups[name]);
  view.order = names.flatMap((name) => groups[name].map((one) => one.picture));
  $("gallery").replaceChildren(
    ...names.flatMap((name) => {
      const row = named("div", "", "gallery");
      row.append(...groups[name].map((one) => one.element));
      return [named("h4", TITLES[name]), row];
    }),
  );
}

// How each method sees an image, the best method first.
function besideOf(pictures) {
  const { ranked } = data.choices[pictures[0].section];
  const order = pictures.toSorted((a, b) => ranked.indexOf(a.label) - ranked.indexOf(b.label));
  return order.map((picture) => {
    const element = document.createElement("figure");
    const caption = named("figcaption", `${data.labels[picture.label]} `);
    const verdict = named("b", "");
    judge({ picture, verdict }, startOf(picture));
    caption.append(verdict);
    element.append(shown(picture, "map"), caption);
    return element;
  });
}

function enlarge(picture) {
  view.enlarged = picture;
  $("viewer-title").textContent = picture.key;
  const limit = startOf(picture);
  $("viewer-facts").textContent =
    `${data.labels[picture.label]}: score ${picture.score.toPrecision(4)}` +
    (typeof limit === "number" ? `, called defective from ${limit.toPrecision(4)}` : "");
  $("viewer-large").replaceChildren(shown(picture, "image"), shown(picture, "map"));
  const same = view.pictures.filter((other) => other.key === picture.key);
  $("viewer-beside").replaceChildren(...(same.length > 1 ? besideOf(same) : []));
  $("viewer-legend").replaceChildren(legendBar(picture));
  if (!$("viewer").open) $("viewer").showModal();
}

function nextPicture(step) {
  const { order, enlarged } = view;
  if (order.includes(enlarged)) enlarge(order.at((order.indexOf(enlarged) + step) % order.length));
}
