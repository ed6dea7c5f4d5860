"""What all figures share: colours, line styles, places of labels, and saving with the caption.

The colours are those of Okabe and Ito, "Color Universal Design" (2008), which colour-blind readers
can tell apart. Curves differ in line style as well.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import cycle, islice
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from kft.files import atomic_write, write_text
from kft.messages import harmless

MODEL = "#0072B2"  # blue
OTHERS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#666666"
NUMBER = re.compile(r"\$\\mathdefault\{[-−\d.^{}\\times ]*\}\$")  # at a logarithmic axis
LineStyle = str | tuple[int, tuple[int, ...]]
STYLES: tuple[LineStyle, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
DPI = 120
LONGEST_NAME = 24  # letters of a name next to an axis
MARGIN = 0.15  # inches around a caption under the picture


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, in inches, whose parts make room for each other."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


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


def open_axes(ax: Axes) -> Axes:
    """Leave only the lower and the left line of the frame."""
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def short_name(name: object) -> str:
    """Return a name from data as there is room for it next to an axis, without its middle.

    Example:
        >>> short_name("Saccharomyces cerevisiae S288C")
        'Saccharomyces …iae S288C'
    """
    text = harmless(str(name).replace("\n", " "))
    end = 9  # often names begin alike
    whole = len(text) <= LONGEST_NAME
    return text if whole else f"{text[: LONGEST_NAME - end - 1]}…{text[-end:]}"


def looks(number: int) -> list[tuple[str, LineStyle]]:
    """Return a colour and a line style for each curve, the first in blue and solid.

    Example:
        >>> looks(2)
        [('#0072B2', '-'), ('#D55E00', '--')]
        >>> len(set(looks(35)))
        35
    """
    return list(islice(zip(cycle((MODEL, *OTHERS)), cycle(STYLES), strict=False), number))


def set_apart(places: Sequence[float], gap: float, high: float = 1.0) -> list[float]:
    """Move places of labels as little as needed to be `gap` apart and none above `high`.

    Args:
        places: Places along an axis, from low to high.
        gap: Least distance of two labels.
        high: Highest place.

    Returns:
        The places, in the same order. With too many of them the first ones are below the lowest
        place given.

    Example:
        >>> set_apart([0.0, 0.5, 0.5], gap=0.25)
        [0.0, 0.5, 0.75]
        >>> set_apart([0.5, 1.0, 1.0], gap=0.5)
        [0.0, 0.5, 1.0]
    """
    apart = list(places)
    for i in range(1, len(apart)):
        apart[i] = max(apart[i], apart[i - 1] + gap)
    for i in reversed(range(len(apart))):
        apart[i] = min(apart[i], apart[i + 1] - gap if i + 1 < len(apart) else high)
    return apart


def plain_log_axis(ax: Axes) -> None:
    """Make the x axis logarithmic, with plain numbers such as 0.5 or 20 where they have room."""
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    steps = (1.0, 2.0, 5.0) if high < 300 * low else (1.0,)
    ax.xaxis.set_major_locator(LogLocator(subs=steps))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.12g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def save_figure(
    figure: Figure, caption: str, path: str | Path, *, caption_below: bool = False
) -> Path:
    """Save a figure as a PNG or SVG file, and its caption as text.

    The caption is also stored in the metadata of the picture, as "Description".

    Args:
        figure: The figure.
        caption: Its caption.
        path: File to write, which must end in ".png" or ".svg". Missing folders are created. The
            caption is written to the same name with ".txt".
        caption_below: True also writes the caption into the picture, below the figure.

    Returns:
        The path of the picture.

    Raises:
        ValueError: The path has another ending.
        OSError: A file cannot be written; an earlier one is as it was.

    Example:
        `save_figure(*plot_regression(targets, {"model": predictions}), "out/gb1.png")`
    """
    path = checked_figure_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_as_it_stands(figure)
    below = _written_below(figure, caption) if caption_below else nullcontext()
    with below as box, atomic_write(path) as stream:
        figure.savefig(
            stream, format=path.suffix[1:], metadata={"Description": caption}, bbox_inches=box
        )
    write_text(path.with_suffix(".txt"), caption + "\n")
    return path


def checked_figure_path(path: str | Path, name: str = "path") -> Path:
    """Check the path of a figure, so that a long computation fails at its start.

    Args:
        path: As for `save_figure`.
        name: Name of the argument, for errors.

    Returns:
        The path.

    Raises:
        ValueError: It ends in neither ".png" nor ".svg".

    Example:
        >>> checked_figure_path("masks.svg").name
        'masks.svg'
    """
    path = Path(path)
    if path.suffix not in (".png", ".svg"):
        raise ValueError(f"{name} must end in .png or .svg, received {str(path)!r}.")
    return path


@contextmanager
def _written_below(figure: Figure, caption: str) -> Iterator[Bbox]:
    """Write a caption below a figure within a `with` block; yield the box that holds both."""
    width, height = figure.get_size_inches()
    engine = figure.get_layout_engine()
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # all stays where it is in a figure without caption
    for legend in figure.legends:
        legend.set_bbox_to_anchor((0, 0, 1, 1), figure.transFigure)
    text = figure.text(
        MARGIN / width, -MARGIN / height, caption, va="top", fontsize=9, parse_math=False
    )
    per_letter = text.get_window_extent().width / figure.dpi / len(caption)  # inches
    text.set_text(textwrap.fill(caption, int(0.95 * (width - 2 * MARGIN) / per_letter)))
    # In whole pixels, so that the figure itself is drawn as it is without the caption.
    pixels = math.ceil(text.get_window_extent().height + 2 * MARGIN * figure.dpi)
    try:
        yield Bbox([[0, -pixels / figure.dpi], [width, height]])
    finally:
        text.remove()
        for legend in figure.legends:
            legend.set_bbox_to_anchor(None)
        figure.set_layout_engine(engine)
