// What the page does: its state is in its address, so that a view can be linked.

// The address is an anchor, fields, or both: `#closer&metric=image_ap&...`.
function readAddress() {
  const parts = location.hash.slice(1).split("&");
  const anchor = parts[0].includes("=") ? "" : parts.shift();
  return { anchor, fields: new URLSearchParams(parts.join("&")) };
}

function writeAddress() {
  const fields = new URLSearchParams({ metric: $("metric").value });
  if (view) {
    const [section, category, method] = chosen();
    const { title, categories, methods } = data.choices[section];
    fields.set("data", title);
    fields.set("category", categories[category]);
    fields.set("method", methods[method]);
    if (view.moved) fields.set("threshold", threshold());
  }
  history.replaceState(null, "", `#${[readAddress().anchor, fields].filter(String).join("&")}`);
}

function readState() {
  const { anchor, fields } = readAddress();
  if (!fields.size) return;
  if ([...$("metric").options].some(({ value }) => value === fields.get("metric")))
    $("metric").value = fields.get("metric");
  showMetric();
  const section = data.choices.findIndex(({ title }) => title === fields.get("data"));
  if (section >= 0) {
    const methods = Object.entries(data.choices[section].methods);
    const method = methods.find(([, name]) => name === fields.get("method"));
    open(section, fields.get("category"), method?.[0]);
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
  const { categories, methods } = data.choices[section];
  $("choose-section").value = section;
  options($("choose-category"), Object.entries(categories));
  options($("choose-method"), Object.entries(methods));
  if (categories.includes(category)) $("choose-category").value = categories.indexOf(category);
  if (method in methods) $("choose-method").value = method;
  choose();
}

function showFirst(place) {
  const section = Number(place.dataset.first);
  const figures = data.first[section].map((number) => galleryFigure(data.pictures[number]));
  for (const one of figures) {
    const { picture, element, verdict } = one;
    judge(one, startOf(picture));
    verdict.after(` by ${data.labels[picture.label]};`);
    const category = data.choices[section].categories[picture.category];
    const opened = () => open(section, category, picture.label);
    element.querySelector("button").addEventListener("click", opened, { capture: true });
  }
  place.replaceChildren(...figures.map((one) => one.element));
  place.append(...figures.slice(0, 1).map((one) => legendBar(one.picture)));
  place.hidden = !figures.length;
}

for (const place of all("[data-chart]"))
  place.replaceWith(figure(JSON.parse(place.dataset.chart), place.textContent));
for (const table of all("main table:not(#images)")) addCsv(table);
showMetric();
$("metric").addEventListener("change", () => (showMetric(), writeAddress()));
if (data.choices.length) {
  const changed = (id, event, show) =>
    $(id).addEventListener(event, () => (show(), writeAddress()));
  open(0, ...data.choices[0].opens);
  all("[data-first]").forEach(showFirst);
  changed("choose-section", "change", () => {
    const section = $("choose-section").value;
    open(section, ...data.choices[section].opens);
  });
  changed("choose-category", "change", choose);
  changed("choose-method", "change", choose);
  changed("threshold", "input", () => ((view.moved = true), move()));
  $("search").addEventListener("input", showImages);
  $("save-images").addEventListener("click", () =>
    saveCsv(`images of ${view.subject}`, [["image", "defect", "verdict", "score"], ...imageRows()]),
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
  if (button.matches(".sort")) {
    turn(button.closest("th"));
    if (button.closest("#images")) showImages();
    else sort(button.closest("th"));
  } else if (button.matches(".number")) showSource(button.dataset.key);
  else {
    const section = button.closest("section").id.replace("section-", "");
    const same = $("choose-section").value === section;
    const method = same ? $("choose-method").value : data.choices[section].opens[1];
    open(section, button.dataset.category, method);
    writeAddress();
  }
});
