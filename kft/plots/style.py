"""Colours and line styles of all figures, and saving a figure with its caption.

The colours are those of Okabe and Ito, "Color Universal Design" (2008), which colour-blind readers
can tell apart. Curves differ in line style as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter

from kft.files import atomic_write, write_text
from kft.messages import harmless

MODEL = "#0072B2"  # blue
OTHERS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#666666"
NUMBER = re.compile(r"\$\\mathdefault\{[-−\d.^{}\\times ]*\}\$")  # at a logarithmic axis
LineStyle = str | tuple[int, tuple[int, ...]]
STYLES: tuple[LineStyle, ...] = ("--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


def write_as_it_stands(figure: Figure) -> None:
    r"""Have names from data drawn as they are: a "$" begins no formula, an escape code no colour.

    Args:
        figure: The figure, whose texts are changed in place. Numbers of logarithmic axes, which
            matplotlib writes as formulas, stay formulas.

    Example:
        >>> figure = Figure()
        >>> title = figure.suptitle("$x$ or \x1b[1m")
        >>> write_as_it_stands(figure)
        >>> title.get_parse_math(), title.get_text()
        (False, '$x$ or \\x1b[1m')
    """
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        formatter = axis.get_major_formatter()
        if isinstance(formatter, FuncFormatter):  # of the names given to `set_xticks`
            formatter.func = _harmless_names(formatter.func)
            for tick in axis.get_major_ticks():
                tick.label1.set_parse_math(False)
                tick.label2.set_parse_math(False)
    for text in figure.findobj(Text):
        if isinstance(text, Text) and not NUMBER.fullmatch(text.get_text()):
            text.set_text(harmless(text.get_text(), keep="\n"))
            if "$" in text.get_text():
                text.set_parse_math(False)


def _harmless_names(names: Callable[..., str]) -> Callable[..., str]:
    return lambda value, place=None: harmless(names(value, place), keep="\n")


def save_figure(figure: Figure, caption: str, path: str | Path) -> Path:
    """Save a figure as a PNG file, and its caption as text.

    The caption is also stored in the PNG file, under the key "Description".

    Args:
        figure: The figure.
        caption: Its caption.
        path: File to write, which must end in ".png". Missing folders are created. The caption is
            written to the same name with ".txt".

    Returns:
        The path of the PNG file.

    Raises:
        ValueError: The path does not end in ".png".
        OSError: A file cannot be written; an earlier one is as it was.

    Example:
        `save_figure(*plot_regression(targets, {"model": predictions}), "out/gb1.png")`
    """
    path = Path(path)
    if path.suffix != ".png":
        raise ValueError(f"path must end in .png, received {str(path)!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_as_it_stands(figure)
    with atomic_write(path) as stream:
        figure.savefig(stream, format="png", metadata={"Description": caption})
    write_text(path.with_suffix(".txt"), caption + "\n")
    return path
