// What the page does: its state is in its address, so that a view can be linked.

const FIELDS = ["metric", "data", "category", "method", "threshold"];

const readAddress = () => {
  const [anchor, ...pairs] = location.hash.slice(1).split("&");
  const all = anchor.includes("=") ? [anchor, ...pairs] : pairs;
  return { anchor: anchor.includes("=") ? "" : anchor, fields: new URLSearchParams(all.join("&")) };
};

function writeAddress() {
  const fields = new URLSearchParams();
  fields.set("metric", $("metric").value);
  if (view) {
    const [section, category, method] = chosen();
    const of = data.choices[section];
    fields.set("data", of.title);
    fields.set("category", of.categories[category]);
    fields.set("method", of.methods[method]);
    if (view.moved) fields.set("threshold", threshold());
  }
  history.replaceState(null, "", `#${[readAddress().anchor, fields].filter(String).join("&")}`);
}

function readState() {
  const { anchor, fields } = readAddress();
  if (![...fields.keys()].some((name) => FIELDS.includes(name))) return;
  if ([...$("metric").options].some(({ value }) => value === fields.get("metric")))
    $("metric").value = fields.get("metric");
  showMetric();
  const section = data.choices.findIndex(({ title }) => title === fields.get("data"));
  if (section >= 0) {
    $("choose-section").value = section;
    open(
      section,
      fields.get("category"),
      Object.entries(data.choices[section].methods).find(
        ([, name]) => name === fields.get("method"),
      )?.[0],
    );
    if (fields.has("threshold")) {
      const at = view.steps.findIndex((step) => step >= Number(fields.get("threshold")));
      $("threshold").value = at < 0 ? view.steps.length - 1 : at;
      view.moved = true;
      move();
    }
  }
  if (anchor) $(anchor)?.scrollIntoView();
}

function open(section, category, method) {
  const of = data.choices[section];
  $("choose-section").value = section;
  options(
    $("choose-category"),
    of.categories.map((name, number) => [number, name]),
  );
  options($("choose-method"), Object.entries(of.methods));
  if (of.categories.includes(category))
    $("choose-category").value = of.categories.indexOf(category);
  if (method in of.methods) $("choose-method").value = method;
  choose();
}

function showFirst() {
  for (const place of all("[data-first]")) {
    const section = Number(place.dataset.first);
    const figures = data.first[section].map((number) => galleryFigure(data.pictures[number]));
    place.replaceChildren(
      ...figures.map((one) => {
        const { picture } = one;
        judge(one, data.starts[panelOf(picture)]);
        one.element.querySelector(".verdict").after(` by ${data.labels[picture.label]};`);
        one.element
          .querySelector("button")
          .addEventListener(
            "click",
            () => open(section, data.choices[section].categories[picture.category], picture.label),
            { capture: true },
          );
        return one.element;
      }),
      ...(figures.length ? [legendBar(figures[0].picture)] : []),
    );
    place.hidden = !figures.length;
  }
}

for (const place of all("[data-chart]")) {
  place.replaceWith(figure(JSON.parse(place.dataset.chart), place.textContent));
}
for (const table of all("main table")) {
  if (table.id === "images") continue;
  addCsv(table);
}
showMetric();
$("metric").addEventListener("change", () => (showMetric(), writeAddress()));
if (data.choices.length) {
  const changed = (show) => () => (show(), writeAddress());
  open(0, ...data.choices[0].opens);
  showFirst();
  $("choose-section").addEventListener(
    "change",
    changed(() => {
      const section = $("choose-section").value;
      open(section, ...data.choices[section].opens);
    }),
  );
  $("choose-category").addEventListener("change", changed(choose));
  $("choose-method").addEventListener("change", changed(choose));
  $("threshold").addEventListener(
    "input",
    changed(() => ((view.moved = true), move())),
  );
  $("choose-image").addEventListener("change", showBeside);
  for (const id of ["search", "filter-verdict", "filter-defect"])
    $(id).addEventListener("input", showImages);
  $("save-images").addEventListener("click", () =>
    saveCsv(`images of ${view.panel}`, [["image", "defect", "verdict", "score"], ...imageRows()]),
  );
}
readState();
addEventListener("hashchange", () => (readState(), writeAddress()));
addEventListener("beforeprint", () =>
  all("details:not(.cell)").forEach((part) => (part.open = true)),
);

for (const dialog of all("dialog")) {
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // outside of its border
  });
}
$("viewer").addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step) nextPicture(step);
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("button.sort, button.number[data-key], a[data-category]");
  if (!button) return;
  if (button.matches("#images .sort")) sortImages(button);
  else if (button.matches(".sort")) sort(button);
  else if (button.matches(".number")) showSource(button.dataset.key);
  else {
    const section = Number(button.closest("section").id.replace("section-", ""));
    open(
      section,
      button.dataset.category,
      $("choose-section").value === String(section)
        ? $("choose-method").value
        : data.choices[section].opens[1],
    );
    writeAddress();
  }
});
