"""Figures as SVG, in a wide form and in a narrow one for phones, and as PNG."""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from kft.plots.style import write_as_it_stands

NARROW = 4.6  # width in inches; text of 10 points then has its size on a phone
ROOM = 0.4  # share of the width that panels have at least; the rest is for labels
MANY = 2000  # points above which they are drawn as an image inside of the figure
SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "kft",
}  # text as text; the same file each time


def svg(figure: Figure) -> str:
    """Draw a figure as SVG, without a background.

    Args:
        figure: The figure. Texts are drawn as they are, see `kft.plots.style`.

    Returns:
        The SVG, the same for the same figure.
    """
    return _drawn(figure, "svg").decode()


def narrow_svg(figure: Figure) -> str:
    """Draw a figure as SVG for a phone: panels that are side by side stand below each other.

    Args:
        figure: The figure, which afterwards is as it was.

    Returns:
        The SVG.
    """
    with _narrowed(figure):
        return svg(figure)


def png(figure: Figure) -> bytes:
    """Draw a figure as PNG, on white.

    Args:
        figure: The figure.
    """
    return _drawn(figure, "png")


def as_uri(content: str | bytes, kind: str = "image/svg+xml") -> str:
    """Return a data URI, which holds a file instead of naming one.

    Args:
        content: Content of the file.
        kind: Its MIME type.

    Example:
        >>> as_uri("<svg/>")
        'data:image/svg+xml;base64,PHN2Zy8+'
    """
    raw = content.encode() if isinstance(content, str) else content
    return f"data:{kind};base64,{base64.b64encode(raw).decode()}"


def _drawn(figure: Figure, form: str) -> bytes:
    write_as_it_stands(figure)
    for points in figure.findobj(PathCollection):
        if isinstance(points, PathCollection) and len(np.asarray(points.get_offsets())) > MANY:
            points.set_rasterized(True)
    # For PNG a background, without which some viewers show black text on black.
    options = {"transparent": True, "metadata": {"Date": None}} if form == "svg" else {"dpi": 110}
    stream = io.BytesIO()
    with matplotlib.rc_context(SETTINGS), _without_warnings():
        figure.savefig(stream, format=form, **options)
    return stream.getvalue()


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Hold back what matplotlib says of letters its font lacks, and of widths that are only tried.

    A browser draws those letters with fonts of the reader's machine.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        warnings.filterwarnings("ignore", "constrained_layout not applied", UserWarning)
        yield


@contextmanager
def _narrowed(figure: Figure) -> Iterator[None]:
    """Make a figure as narrow as a phone, or as its labels let it be, while it is drawn."""
    width, height = (float(x) for x in figure.get_size_inches())
    places = [(ax, spec) for ax in figure.axes if (spec := ax.get_subplotspec()) is not None]
    shown = [ax for ax, _ in places if ax.get_visible()]
    grids = {id(spec.get_gridspec()): spec.get_gridspec() for _, spec in places}
    tall, across = height, 1
    try:
        if len(grids) == 1 and (grid := next(iter(grids.values()))).ncols > 1:
            across = 1 if grid.ncols < 4 else 2
            down = math.ceil(len(shown) / across)
            new = GridSpec(down, across, figure=figure)
            for k, ax in enumerate(shown):
                ax.set_subplotspec(new[k // across, k % across])
            tall *= down / grid.nrows
        for narrow in (x for x in (NARROW, 1.4 * NARROW, width) if x <= width):
            figure.set_size_inches(narrow, tall)
            with _without_warnings():
                figure.draw_without_rendering()
            if all(ax.get_position().width > ROOM / across for ax in shown):
                break
        yield
    finally:
        for ax, spec in places:
            ax.set_subplotspec(spec)
        figure.set_size_inches(width, height)
        with _without_warnings():
            figure.draw_without_rendering()  # parts find their places from where they are
