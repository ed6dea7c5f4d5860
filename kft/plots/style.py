"""Colours and line styles of all figures, and saving a figure with its caption.

The colours are those of Okabe and Ito, "Color Universal Design" (2008), which colour-blind readers
can tell apart. Curves differ in line style as well.
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from kft.files import atomic_write, write_text

MODEL = "#0072B2"  # blue
OTHERS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#666666"
LineStyle = str | tuple[int, tuple[int, ...]]
STYLES: tuple[LineStyle, ...] = ("--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


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
    with atomic_write(path) as stream:
        figure.savefig(stream, format="png", metadata={"Description": caption})
    write_text(path.with_suffix(".txt"), caption + "\n")
    return path
