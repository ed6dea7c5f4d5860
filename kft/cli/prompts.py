"""Prompts of `kft segment`: points and boxes as they are written on the command line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import typer

from kft.messages import shown

PADDING = -1  # label of what fills up objects with fewer points


def points_of(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray] | None:
    """Read points, of one object each.

    Args:
        texts: For each object "X,Y", or several points with spaces between them; "X,Y,0" is a point
            that is not of the object. Or one path of a CSV file with the columns x and y, and
            optionally object (its number or name) and label.

    Returns:
        Points (N, P, 2) float64 and labels (N, P) int32, 1, 0 or -1 for padding; None for no texts.

    Raises:
        typer.BadParameter: A text has another form.

    Example:
        >>> points, labels = points_of(["120,80 60,70,0", "5,6"])
        >>> points.shape, labels.tolist()
        ((2, 2, 2), [[1, 0], [1, -1]])
    """
    if not texts:
        return None
    if (table := _table(texts, "--points", ("x", "y"))) is not None:
        names = table.get("object", list(map(str, range(len(table["x"])))))
        marks = table.get("label", ["1"] * len(names))
        rows = [",".join(row) for row in zip(table["x"], table["y"], marks, strict=True)]
        objects = [
            [row for row, name in zip(rows, names, strict=True) if name == one]
            for one in dict.fromkeys(names)
        ]
    else:
        objects = [text.replace(";", " ").split() for text in texts]
    given = [[_point(point) for point in points] for points in objects]
    if not all(given):
        raise typer.BadParameter('--points takes "X,Y" for each object, received an empty text.')
    longest = max(map(len, given))
    filled = [points + [(0.0, 0.0, PADDING)] * (longest - len(points)) for points in given]
    array = np.array(filled, dtype=np.float64)
    return array[..., :2], array[..., 2].astype(np.int32)


def boxes_of(texts: Sequence[str]) -> np.ndarray | None:
    """Read boxes, of one object each.

    Args:
        texts: "X0,Y0,X1,Y1" for each object; or one path of a CSV file with these columns.

    Returns:
        Boxes (N, 4) float64; None for no texts.

    Raises:
        typer.BadParameter: A text has another form.

    Example:
        >>> boxes_of(["10,20,60,70"])
        array([[10., 20., 60., 70.]])
    """
    if not texts:
        return None
    columns = ("x0", "y0", "x1", "y1")
    if (table := _table(texts, "--boxes", columns)) is not None:
        texts = [",".join(row) for row in zip(*(table[x] for x in columns), strict=True)]
    return np.array([_numbers(text, "--boxes", "X0,Y0,X1,Y1", (4,)) for text in texts])


def _point(text: str) -> tuple[float, float, int]:
    x, y, *mark = _numbers(text, "--points", '"X,Y", or "X,Y,0" beside the object', (2, 3))
    label = mark[0] if mark else 1
    if label not in (0, 1):
        raise typer.BadParameter(
            f"--points: the third number is 1 for a point of the object and 0 for one that is not, "
            f"received {text!r}."
        )
    return x, y, int(label)


def _numbers(text: str, option: str, expected: str, counts: tuple[int, ...]) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in counts or not np.isfinite(numbers).all():
        raise typer.BadParameter(f"{option} takes {expected}, received {shown(text)}.")
    return numbers


def _table(texts: Sequence[str], option: str, needed: Sequence[str]) -> dict[str, list[str]] | None:
    """Return the columns of a CSV file if the texts are the path of one, else None."""
    if len(texts) != 1 or not texts[0].lower().endswith((".csv", ".tsv")):
        return None
    import pandas as pd

    try:
        frame = pd.read_csv(texts[0], sep=None, engine="python", dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:  # those of pandas are ValueErrors
        raise typer.BadParameter(f"{option}: {texts[0]} cannot be read: {error}") from None
    columns = {str(name).strip().lower(): frame[name].tolist() for name in frame}
    if absent := [name for name in needed if name not in columns]:
        raise typer.BadParameter(
            f"{option}: {texts[0]} has no column {', '.join(absent)}; it has {', '.join(columns)}."
        )
    if not columns[needed[0]]:
        raise typer.BadParameter(f"{option}: {texts[0]} has no rows.")
    return columns
