"""Horizontal bars as SVG, without a plotting library: a bar to the median, a line from least to most."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, LEFT, RIGHT = 820, 250, 70
ROW, TOP = 26, 46
TITLE_LETTERS = 118
"""That fit in a line of the title."""

STYLE = (
    "text{font:13px sans-serif;fill:#222}.title{font-weight:bold}.small{font-size:11px}.bar{fill:#4878a8}"
    ".range{stroke:#222;stroke-width:1.5}"
)


class Bar(NamedTuple):
    """One row."""

    name: str
    values: tuple[float, float, float]
    """Least, median and most."""


def bars(title: str, shown: Sequence[Bar]) -> str:
    """The picture."""
    scale = (WIDTH - LEFT - RIGHT) / (max(bar.values[2] for bar in shown) or 1)
    head, _, rest = title.partition(": ")
    parts = [
        f'<text class="title" x="8" y="18">{escape(head)}</text>',
        f'<text class="small" x="8" y="36">{escape(rest[:TITLE_LETTERS])}</text>',
    ]
    for index, bar in enumerate(shown):
        least, median, most = bar.values
        middle = TOP + ROW * index + ROW / 2
        label = f"{median:.3g}" if median < 100 else f"{median:.0f}"
        begin, length, end = LEFT + scale * least, scale * max(median, 0), LEFT + scale * most
        parts += [
            f'<text x="{LEFT - 8}" y="{middle + 4:.1f}" text-anchor="end">{escape(bar.name)}</text>',
            f'<rect class="bar" x="{LEFT}" y="{middle - 8:.1f}" width="{length:.1f}" height="16"/>',
            f'<path class="range" d="M{begin:.1f} {middle:.1f}H{end:.1f}"/>',
            f'<text x="{end + 6:.1f}" y="{middle + 4:.1f}">{label}</text>',
        ]
    height = TOP + ROW * len(shown) + 10
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}"><style>{STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )
