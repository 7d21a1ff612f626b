"""The verdict in one sentence: it says no more than the pairwise tests do."""

from __future__ import annotations

import pytest
from made_rows import made_frame

from results.analysis.cells import labelled
from results.analysis.statistics import pairwise
from results.analysis.summary import summary
from results.reports.leader import Leader, leader


def _leader(values: dict, metric: str = "image_auroc") -> Leader:
    frame = made_frame(values, metric)
    return leader(metric, labelled(summary(frame)).to_dicts(), pairwise(frame).to_dicts())


def _values(seeds: int = 3, categories: int = 8, noise: float = 0.001, **means: float) -> dict:
    return {
        (method, seed, f"c{category}"): mean
        + 0.01 * category
        + noise * ((seed * (1 + len(method)) + category) % 3)
        for method, mean in means.items()
        for seed in range(seeds)
        for category in range(categories)
    }


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (_values(a=0.5, bb=0.7, c=0.6), "bb leads in image_auroc (73.6 %): better than all others"),
        (_values(a=0.60, bb=0.61, noise=0.05), "can't tell it from a: another training may turn"),
        (_values(a=0.5, bb=0.7, categories=3), "3 seeds tell it from all others on these images"),
        (_values(a=0.5, bb=0.7, seeds=1), "ahead of all others, by 1 seed on 8 categories"),
        (_values(a=0.5, bb=0.7, seeds=1, categories=2), "2 categories can't tell it from a"),
        (_values(a=0.5), "a reaches 53.6 % in image_auroc, alone"),
        (_values(seeds=1, a=0.5, b=0.6, c=0.7, d=0.8, e=0.9), "from d, c, b and 1 more"),
        (
            _values(a=0.5, bb=0.45) | {("bb", seed, "c1"): 0.99 for seed in range(3)},
            "bb leads in image_auroc (55.2 %), but is lower on most products than a",
        ),
    ],
)  # fmt: skip
def test_the_sentence_follows_the_verdict(values: dict, words: str) -> None:
    found = _leader(values)
    assert words in found.sentence
    assert found.told == ("better than all" in found.sentence)


def test_a_row_that_lacks_categories_leads_nothing() -> None:
    values = _values(a=0.5, bb=0.6, broken=0.9)
    del values["broken", 0, "c0"]
    assert _leader(values).name == "bb"
    only = {key: value for key, value in values.items() if key[0] == "broken"}
    other = {("a", 0, "c9"): 0.5}
    assert _leader(only | other).sentence == "no method has image_auroc of every category yet"


def test_a_metric_that_was_not_asked_for_is_not_told() -> None:
    found = _leader(_values(a=0.5, bb=0.7), "image_ap")
    assert not found.told
    assert found.sentence.endswith("other products were not asked about in this metric")


def test_equal_rows_are_not_led() -> None:
    found = _leader(_values(a=0.5, b=0.5))
    assert found.sentence.startswith("a and b are level")
