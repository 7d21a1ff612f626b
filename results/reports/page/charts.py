"""Charts for the page, as wide as a phone: matplotlib draws them, the page's style colours them."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import ArrayLike

WIDTH = 340  # pixels: a phone of 390 shows it without scaling the letters
_DPI = 100
LONGEST = 22  # letters of a name beside a scatter plot
COLOURS, DASHES, MARKERS = 8, ("solid", "dashed", "dotted"), "osD^vPX*"
"""Methods differ in dash and marker as well: colour alone never tells them apart."""

# Stand-ins, which become the page's own colours: it knows whether it is light or dark.
_INK, _FAINT = "#000001", "#000002"
_SERIES = [f"#0000{16 + number:02x}" for number in range(COLOURS)]
_PAINT = {_INK: "currentColor", _FAINT: "var(--rule)"} | {
    stand_in: f"var(--s{number})" for number, stand_in in enumerate(_SERIES)
}
_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a name with a dollar is a name
    "svg.fonttype": "none",  # letters stay letters
    "path.simplify_threshold": 0.5,
    "font.size": 9,
    "axes.titlesize": 9,
    "lines.linewidth": 1.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _FAINT,
    "grid.linewidth": 0.7,
} | dict.fromkeys(
    ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK
)
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_styled = matplotlib.rc_context(_STYLE)

_FONTS = re.compile(r"font-family: [^;\"]*")
_GROUPS = re.compile(r'<g id="[^"]*"')


class Line(NamedTuple):
    """One method's curve; `series` is the method's index."""

    series: int
    x: ArrayLike
    y: ArrayLike


class Point(NamedTuple):
    """One method in a scatter plot."""

    series: int
    name: str
    x: float
    y: float


@_styled
def curves(lines: Sequence[Line], title: str, names: tuple[str, str], right: float = 1.0) -> Markup:
    """Curves in the unit square, drawn up to `right` on the x axis."""
    figure, axis = _axes(290)
    axis.plot((0, 1), (0, 1), color=_FAINT, linewidth=1, zorder=0)
    for line in lines:
        dash = DASHES[line.series // 4 % len(DASHES)]
        axis.plot(line.x, line.y, color=_colour(line.series), linestyle=dash)
    axis.set(xlim=(0, right), ylim=(0, 1.01), xlabel=names[0])
    axis.set_title(names[1], loc="left")
    return _svg(figure, title)


@_styled
def scatter(points: Sequence[Point], title: str, names: tuple[str, str]) -> Markup:
    """Methods by two numbers; a line leads from each point to its name on the right."""
    figure, axis = _axes(270, right=132)
    log = max(point.x for point in points) > 5 * min(point.x for point in points)
    for point in points:
        axis.plot(point.x, point.y, _marker(point.series), color=_colour(point.series))
    axis.set(xscale="log" if log else "linear", xlabel=names[0])
    axis.set_title(names[1], loc="left")
    axis.margins(0.1)
    if log:
        # Decades alone would leave most axes with one tick.
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
    _name(axis, points)
    return _svg(figure, title)


@_styled
def critical_difference(
    ranked: Sequence[Point], bars: Sequence[tuple[int, int]], title: str
) -> Markup:
    """Average ranks (x), the best first; bars below join ranks that are not told apart."""
    rows, step = len(ranked), 0.45
    longest = max(len(point.name) for point in ranked)
    figure, axis = _axes(76 + 24 * rows + 11 * len(bars), left=min(18 + 6.2 * longest, 190))
    for row, point in enumerate(ranked):
        axis.plot(point.x, row, _marker(point.series), color=_colour(point.series))
    for number, (first, last) in enumerate(bars):
        below = rows - 0.3 + step * number
        ends = ranked[first].x - 0.05, ranked[last].x + 0.05
        axis.plot(ends, (below, below), color=_INK, linewidth=3, solid_capstyle="butt")
    axis.set_yticks(range(rows), [point.name for point in ranked])
    axis.set(xlim=(0.8, rows + 0.2), ylim=(rows - 0.3 + step * len(bars), -0.6))
    axis.set_xlabel("average rank")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _svg(figure, title)


@_styled
def knob(
    name: str, values: Sequence[float], heights: Mapping[str, Sequence[float]], chosen: float
) -> Markup:
    """Figure 6: image AUROC on each set against one knob, the chosen value marked."""
    figure, axis = _axes(260)
    for series, (label, line) in enumerate(heights.items()):
        style = MARKERS[series] + ("-", "--")[series]
        axis.plot(values, line, style, color=_colour(series), label=label, markersize=4)
    axis.axvline(chosen, color=_INK, linestyle="dotted", linewidth=1)
    axis.set_xlabel(f"{name} (dotted line: chosen)")
    axis.set_title("image AUROC, %", loc="left")
    axis.legend(fontsize=8, frameon=False)
    return _svg(figure, f"{' and '.join(heights)} against {name}")


def _axes(height: float, left: float = 38, right: float = 16) -> tuple[Figure, Axes]:
    """Axes in a figure `height` pixels high, with room for labels on the left and right."""
    figure = Figure(figsize=(WIDTH / _DPI, height / _DPI), dpi=_DPI)
    width, inside = WIDTH - left - right, height - 70
    return figure, figure.add_axes((left / WIDTH, 46 / height, width / WIDTH, inside / height))


def _svg(figure: Figure, title: str) -> Markup:
    file = io.StringIO()
    # Ids of their own, so that no chart leans on another, which may be hidden.
    with matplotlib.rc_context({"svg.hashsalt": title}):
        figure.savefig(file, format="svg", transparent=True, metadata=_NO_METADATA)
    text = file.getvalue()
    _, _, inside = text[text.index("<svg") :].partition(">")
    box = f"0 0 {WIDTH * 72 / _DPI:g} {figure.get_figheight() * 72:g}"
    for stand_in, paint in _PAINT.items():
        inside = inside.replace(stand_in, paint)
    inside = _GROUPS.sub("<g", _FONTS.sub("font-family: inherit", inside))
    opened = Markup('<svg viewBox="{}" role="img" aria-label="{}" class="chart">')
    return opened.format(box, title) + Markup(inside)


def _colour(series: int) -> str:
    return _SERIES[series % COLOURS]


def _marker(series: int) -> str:
    return MARKERS[series % len(MARKERS)]


def _name(axis: Axes, points: Sequence[Point]) -> None:
    """Names in a column on the right, as near to the height of their points as they fit."""
    axis.autoscale_view()
    axis.autoscale(False)  # the lines below are no data
    to_axes = axis.transData + axis.transAxes.inverted()
    free, step = 1.0, 0.068
    for number, point in enumerate(sorted(points, key=lambda point: -point.y)):
        x, y = to_axes.transform((point.x, point.y))
        below = step * (len(points) - number - 1)  # what the others still need
        free = max(min(y, free), below)
        (line,) = axis.plot((x, 1.02), (y, free), color=_colour(point.series), linewidth=0.6)
        line.set(transform=axis.transAxes, clip_on=False)
        name = point.name if len(point.name) <= LONGEST else point.name[: LONGEST - 1] + "…"
        axis.text(1.035, free, name, transform=axis.transAxes, fontsize=8, va="center")
        free -= step
