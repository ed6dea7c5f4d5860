"""`report`: one page on a run, a comparison, or whatever was found about a data set."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kft.arguments import check_choice, check_instance, check_path
from kft.files import atomic_write
from kft.finetuning import Run
from kft.messages import listed
from kft.reporting.document import Section
from kft.reporting.folders import parts_of_run
from kft.reporting.markdown import to_markdown, to_notebook
from kft.reporting.pages import to_html
from kft.reporting.parts import Parts, parts_of
from kft.reporting.sections import in_short, sections_of

ENDINGS = (".html", ".md", ".ipynb")


@dataclass(frozen=True)
class Report:
    """A report; `save` writes it, and a notebook shows it.

    Attributes:
        title: Its title.
        summary: The results in a few sentences.
        sections: Its sections.
        made: Who wrote it and when.
    """

    title: str
    summary: tuple[str, ...]
    sections: tuple[Section, ...]
    made: str

    def to_html(self) -> str:
        """Return one HTML page that needs no network, no script and no other file."""
        return to_html(self.title, self.summary, self.sections, self.made)

    def save(self, path: str | Path) -> Path:
        """Write the report.

        Args:
            path: File that ends in ".html"; in ".md", with the figures in a folder next to it, the
                name of the file and "_figures"; or in ".ipynb", a Jupyter notebook that holds them.
                Missing folders are made.

        Returns:
            The path.

        Raises:
            ValueError: The path ends otherwise.
        """
        path = Path(path)
        check_choice("the ending of path", path.suffix.lower(), ENDINGS)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = (self.title, self.summary, self.sections, self.made)
        if path.suffix.lower() == ".html":
            text = self.to_html()
        elif path.suffix.lower() == ".ipynb":
            text = to_notebook(*content)
        else:
            text = to_markdown(*content, path)
        with atomic_write(path) as stream:
            stream.write(text.encode())
        return path

    def __repr__(self) -> str:
        titles = listed((section.title for section in self.sections), None)
        return f"Report({self.title!r}: {titles})"

    def _repr_html_(self) -> str:
        page = html.escape(self.to_html(), quote=True)
        return f'<iframe srcdoc="{page}" style="width: 100%; height: 80vh; border: 0"></iframe>'


def report(
    subject: Any,
    path: str | Path | None = None,
    *,
    question: str | None = None,
    title: str | None = None,
    command: str | None = None,
) -> Report:
    """Write a report: question, data, preparation, model, training, assessment, limits, repetition.

    A section is left out if its part was not given; the section on limits then names it.

    Args:
        subject: A run or its folder, as `kft finetune` writes it; or what kft's functions return,
            one or a list: `kft.compare`, `kft.evaluate`, `kft.fit`, `kft.explore`,
            `kft.evaluate(...).transfer`, a data set or a model; `kft.fold`, perhaps with the true
            chain, of `kft.structure.read_structure`.
        path: File to write, see `Report.save`; None writes none.
        question: The question that the work answers; None for one that the parts suggest.
        title: Title of the report; None for the name of the data.
        command: Command that repeats the work; None for that of the run, or for the running
            program if it is a script.

    Returns:
        `Report`, which a notebook shows.

    Raises:
        TypeError: The subject is of another type.
        ValueError: Two parts are of the same type or of different data, or the path ends otherwise.
        FileNotFoundError: There is no run in the folder.

    Example:
        >>> import pandas as pd
        >>> from kft.exploration import explore
        >>> found = explore(pd.DataFrame({"x": [1, 2, 3] * 20, "y": [0, 1, 1] * 20}), target="y")
        >>> report(found, title="Toy data")
        Report('Toy data': Question, Exploration, Limits and How to repeat this)
    """
    for name, text in {"question": question, "title": title, "command": command}.items():
        if text is not None:
            check_instance(name, text, str, "a string")
    if path is not None:  # before the work
        check_path("path", path)
        check_choice("the ending of path", Path(path).suffix.lower(), ENDINGS)
    subject = subject.folder if isinstance(subject, Run) else subject
    parts = parts_of_run(subject) if isinstance(subject, str | Path) else parts_of(subject)
    made = f"Written by kft {version('kft')} on {date.today().isoformat()}."
    sections: Sequence[Section] = sections_of(parts, question, command)
    written = Report(title or _title(parts), tuple(in_short(parts)), tuple(sections), made)
    if path is not None:
        written.save(path)
    return written


def _title(parts: Parts) -> str:
    if parts.about is not None:
        name = parts.about.name
        return f"{name}: {parts.about.target}" if parts.about.target else name
    if parts.comparison is not None:
        return parts.comparison.data
    if parts.fold is not None:
        return parts.fold.chain.name
    return parts.findings.name if parts.findings is not None else "Report"
