"""The report's pictures: small SVG drawings, inline in the page, the same bytes for the same rows."""

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, Any]
# Okabe and Ito's colours, told apart by colour-blind readers too (jfly.uni-koeln.de/color, 2008).
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999", "#F0E442")
_INK, _LINE = "#3a3f47", "#d8dce2"


def _draw(paint: Any, width: float = 5.2, height: float = 2.4) -> str:
    """Return as SVG what `paint(axes)` draws; sizes in inches."""
    import matplotlib

    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "nightshelf",
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.edgecolor": _LINE,
        "axes.labelcolor": _INK,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
    }
    from matplotlib.figure import Figure

    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        paint(figure.subplots())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _legend(axes: "Axes", columns: int) -> None:
    # Three names a line at most: a wider legend would take its width from the picture.
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=min(columns, 3),
        frameon=False,
        handlelength=1.2,
        borderaxespad=0.2,
    )


def lines_by_day(rows: list[Row], names: list[str], label: str, percent: bool = False) -> str:
    """Draw one line per name over the days of the rows; a day without a value leaves a gap."""

    def paint(axes: "Axes") -> None:
        """Draw the lines in the order of the names, which is that of the colours."""
        days = [f"{row['day']:%d %b}" for row in rows]
        for at, name in enumerate(names):
            values = [float("nan") if row[name] is None else float(row[name]) for row in rows]
            axes.plot(
                days, values, marker="o", markersize=3, linewidth=1.6, color=COLOURS[at % len(COLOURS)], label=name
            )
        _finish_days(axes, days, label, percent)
        _legend(axes, len(names))

    return _draw(paint)


def bars_by_day(rows: list[Row], names: list[str], label: str) -> str:
    """Draw one stacked bar per day."""

    def paint(axes: "Axes") -> None:
        """Draw the names as layers, the first at the bottom; a missing value is 0."""
        days = [f"{row['day']:%d %b}" for row in rows]
        base = [0.0] * len(rows)
        for at, name in enumerate(names):
            values = [float(row[name] or 0) for row in rows]
            axes.bar(days, values, bottom=base, width=0.7, color=COLOURS[at % len(COLOURS)], label=name)
            base = [b + v for b, v in zip(base, values, strict=True)]
        _finish_days(axes, days, label, False)
        _legend(axes, len(names))

    return _draw(paint)


def _finish_days(axes: "Axes", days: list[str], label: str, percent: bool) -> None:
    from matplotlib.ticker import FuncFormatter

    axes.set_ylim(bottom=0)
    axes.set_ylabel(label)
    axes.grid(axis="y", color=_LINE, linewidth=0.6)
    step = -(-len(days) // 7)
    axes.set_xticks(range(0, len(days), step), days[::step])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.3g} %" if percent else f"{v:,.0f}"))
    if percent:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.3g} %"))


def stacked_shares(rows: list[Row], group: str, part: str, share: str) -> str:
    """Draw one horizontal bar of 100 % per group, cut into its parts."""
    groups, parts = _unique(row[group] for row in rows), _unique(row[part] for row in rows)
    shares = {(row[group], row[part]): float(row[share]) for row in rows}

    def paint(axes: "Axes") -> None:
        """Draw the groups from top to bottom, their parts from left to right; a part that a group lacks has no width."""
        base = [0.0] * len(groups)
        for at, name in enumerate(parts):
            values = [shares.get((g, name), 0.0) for g in groups]
            axes.barh(groups, values, left=base, height=0.62, color=COLOURS[at % len(COLOURS)], label=name)
            base = [b + v for b, v in zip(base, values, strict=True)]
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
        _legend(axes, len(parts))

    return _draw(paint, height=0.8 + 0.3 * len(groups))


def score_boxes(rows: list[Row]) -> str:
    """Draw the spread of scores per scenario: box 25–75 %, whiskers 5–95 %."""

    def paint(axes: "Axes") -> None:
        """Draw the boxes from the five quantiles of each row, the first scenario on top."""
        names = ("whislo", "q1", "med", "q3", "whishi")
        boxes = [{**dict(zip(names, row["score_quantiles"], strict=True)), "label": row["scenario"]} for row in rows]
        axes.bxp(
            boxes,
            orientation="horizontal",
            showfliers=False,
            medianprops={"color": COLOURS[0], "linewidth": 2},
            boxprops={"color": _INK},
        )
        axes.invert_yaxis()
        axes.set_xlabel("score (expected utility)")
        axes.grid(axis="x", color=_LINE, linewidth=0.6)

    return _draw(paint, height=0.8 + 0.3 * len(rows))


def intervals(rows: list[Row], label: str) -> str:
    """Draw value and 95 % bounds per scenario, one colour a task."""
    groups, tasks = _unique(row["scenario"] for row in rows), _unique(row["task"] for row in rows)

    def paint(axes: "Axes") -> None:
        """Draw the scenarios from top to bottom, the tasks of one a little apart; without bounds a point stands alone."""
        for at, task in enumerate(tasks):
            own = [row for row in rows if row["task"] == task]
            places = [groups.index(row["scenario"]) + 0.16 * (at - (len(tasks) - 1) / 2) for row in own]
            values = [row["value"] for row in own]
            spans = [
                [max(0.0, row["value"] - _or(row["lower"], row["value"])) for row in own],
                [max(0.0, _or(row["upper"], row["value"]) - row["value"]) for row in own],
            ]
            axes.errorbar(
                values,
                places,
                xerr=spans,
                fmt="o",
                markersize=4,
                capsize=2,
                linewidth=1.2,
                color=COLOURS[at % len(COLOURS)],
                label=task,
            )
        axes.set_yticks(range(len(groups)), ["all" if group == "*" else group for group in groups])
        axes.invert_yaxis()
        axes.set_xlabel(label)
        axes.grid(axis="x", color=_LINE, linewidth=0.6)
        _legend(axes, len(tasks))

    return _draw(paint, width=7.6, height=0.9 + 0.36 * len(groups))


def grouped_bars(groups: list[str], series: dict[str, list[float]], label: str) -> str:
    """Draw for each group one bar per series, side by side."""

    def paint(axes: "Axes") -> None:
        """Draw the bars of a group around its mark, in the order of the series."""
        width = 0.84 / max(1, len(series))
        for at, (name, values) in enumerate(series.items()):
            places = [place + width * (at - (len(series) - 1) / 2) for place in range(len(groups))]
            axes.bar(places, values, width=width * 0.92, color=COLOURS[at % len(COLOURS)], label=name)
        axes.set_xticks(range(len(groups)), groups)
        axes.set_ylabel(label)
        axes.grid(axis="y", color=_LINE, linewidth=0.6)
        _legend(axes, len(series))

    return _draw(paint, width=7.6, height=2.8)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
