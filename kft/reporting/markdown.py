"""A report as Markdown, and as a Jupyter notebook."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from kft.files import atomic_write
from kft.messages import harmless
from kft.reporting.document import Block, Code, Facts, Items, Paragraph, Picture, Section, Table
from kft.reporting.drawing import png

MEANING = re.compile(r"([\\`*_{}\[\]()#+!|~:-])")  # what Markdown may obey
Drawer = Callable[[Picture], str]  # returns where the drawn figure is found


def to_markdown(
    title: str, summary: Iterable[str], sections: Iterable[Section], made: str, path: Path
) -> str:
    """Write a report as Markdown, and its figures to a folder next to it.

    Args:
        title: Its title.
        summary: The results in a few sentences.
        sections: Its sections.
        made: Who wrote it and when.
        path: File that the text is for; its name names the folder.

    Returns:
        The text.
    """
    folder = path.with_name(f"{path.stem}_figures")
    folder.mkdir(exist_ok=True)
    drawn: list[str] = []

    def draw(picture: Picture) -> str:
        name = f"{len(drawn) + 1}_{re.sub(r'[^a-z]+', '_', picture.title.lower())}.png"
        with atomic_write(folder / name) as stream:
            stream.write(png(picture.figure))
        drawn.append(name)
        return f"<{folder.name}/{name}>" if " " in folder.name else f"{folder.name}/{name}"

    texts = [_head(title, summary)]
    texts += [_section(section, draw) for section in sections]
    return "\n\n".join([*texts, escaped(made)]) + "\n"


def to_notebook(title: str, summary: Iterable[str], sections: Iterable[Section], made: str) -> str:
    """Write a report as a Jupyter notebook with a cell for each section, which holds its figures.

    Args:
        title: Its title.
        summary: The results in a few sentences.
        sections: Its sections.
        made: Who wrote it and when.

    Returns:
        The notebook, JSON of version 4 of its format.
    """
    cells = [_cell("summary", _head(title, summary), {})]
    for section in sections:
        attached: dict[str, Any] = {}

        def draw(picture: Picture, attached: dict[str, Any] = attached) -> str:
            name = f"{len(attached) + 1}.png"
            attached[name] = {"image/png": base64.b64encode(png(picture.figure)).decode()}
            return f"attachment:{name}"

        cells.append(_cell(section.key, _section(section, draw), attached))
    cells.append(_cell("made", escaped(made), {}))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    content = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "cells": cells,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _cell(key: str, text: str, attached: dict[str, Any]) -> dict[str, Any]:
    cell = {"cell_type": "markdown", "id": key, "metadata": {}, "source": text}
    return cell | ({"attachments": attached} if attached else {})


def escaped(text: str) -> str:
    r"""Return a text of which neither Markdown, HTML nor a formula remains.

    Args:
        text: Any text. Its line ends become spaces.

    Example:
        >>> escaped("*a* <b> $x$")
        '\\*a\\* &lt;b&gt; <span>$</span>x<span>$</span>'
    """
    text = harmless(" ".join(text.split()))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"^(\d+)\.", r"\1\\.", MEANING.sub(r"\\\1", text))  # no number of a list
    # No escape sequence keeps every reader of Markdown from beginning a formula.
    return text.replace("$", "<span>$</span>").replace("@", "&#64;")


def _head(title: str, summary: Iterable[str]) -> str:
    return "\n\n".join([f"# {escaped(title)}", *(f"> {escaped(text)}\n>" for text in summary)])


def _section(section: Section, draw: Drawer) -> str:
    texts = [f"## {escaped(section.title)}"]
    return "\n\n".join([*texts, *(_block(block, draw) for block in section.blocks)])


def _block(block: Block, draw: Drawer) -> str:
    match block:
        case Paragraph(text, tone):
            return escaped(text) if tone == "plain" else f"**{escaped(text)}**"
        case Items(texts):
            return "\n".join(f"- {escaped(text)}" for text in texts)
        case Facts(pairs):
            return _table(("", ""), pairs, ())
        case Code(text, language):
            return _code(text, language)
        case Table():
            return f"{escaped(block.caption)}\n\n{_table(block.columns, block.rows, block.numbers)}"
        case Picture():
            about, stands_out = block.parts
            said = f" **What stands out:** {escaped(stands_out)}" if stands_out else ""
            image = f"![{escaped(block.alternative)}]({draw(block)})"
            return f"{image}\n\n{escaped(about)}{said}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Iterable[int]) -> str:
    right = set(numbers)
    lines = [columns, *rows]
    cells = [" | ".join(_indented(cell) for cell in line) for line in lines]
    rule = " | ".join("---:" if k in right else "---" for k in range(len(columns)))
    return "\n".join(f"| {line} |" for line in (cells[0], rule, *cells[1:]))


def _indented(cell: str) -> str:
    return "&nbsp;" * (len(cell) - len(cell.lstrip(" "))) + escaped(cell)


def _code(text: str, language: str) -> str:
    fence = "`" * max(3, 1 + max((len(x) for x in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{harmless(text, keep=chr(10))}\n{fence}"
