"""Glossary of the page, for whoever has not read the paper."""

from __future__ import annotations

from results.analysis.equivalence import ROPE

WORDS = {
    "AUROC": "How often a defective image (or pixel) scores above a normal one: 50 % is chance.",
    "AP": "Average precision: how pure the highest-scored images (or pixels) are.",
    "F1-max": "The best balance of precision and recall that any threshold reaches on the test "
    "images; to be read as a bound, as nobody knows that threshold beforehand.",
    "AUPRO": "How much of each defect its map covers, while few normal pixels are marked.",
    "95 %, seeds": "Where the mean of other trainings would lie, by the spread over seeds.",
    "category std": "How unequal the categories are: 0 would be the same value on each.",
    "worst": "The category with the lowest mean over seeds.",
    "pooled": "All test images of all categories together, under one threshold.",
    "seed": "The number that a training draws its chance from; more seeds show how much is chance.",
    "points": "Percentage points: from 90 % to 92 % are 2 points.",
    "another training": "95 % interval of the difference, over seeds: one that holds 0 is noise.",
    "another product, p": "A test of ranks and one of the mean over categories, the weaker of the "
    "two, corrected for the number of pairs: below 0.05 the order holds on products like these.",
    "better / equal / worse": "How probable it is that on another product the first of the pair "
    f"is better, both lie within {100 * ROPE:g} points, or it is worse.",
    "variant": "A method with a setting that is not its own, written behind its name.",
    "#": "Six digits behind it tell rows of one name apart that differ in images, settings or "
    "code; the table of versions says in what.",
    "cell": "One run: a method, a data set and a seed. Its id comes of its settings and code.",
    "knob": "A setting that can be changed without training again, such as how a map is smoothed.",
    "held-out normal images": "Normal images that were not learned from; they set the threshold.",
    "asked": "The share of false alarms that the threshold was set for.",
    "expected": "Where it lies, 95 times in 100, on test images like the held-out ones.",
    "pseudo-validation": "Defects painted onto normal images, to choose without real ones.",
    "best, %": "The highest value on the test split of all settings that were tried.",
    "chosen, %": "The value on the test split of the chosen setting.",
    "regret": "How many points the choice lies below the best that was tried.",
    "peak GiB": "The most memory that a run needed.",
    "fit s": "Seconds that the training took.",
}
"""Word -> meaning; most words are names of columns, which show it under the pointer."""
