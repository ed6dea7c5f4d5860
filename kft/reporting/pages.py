"""A report as one HTML page, by the template page.html."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from kft.messages import harmless
from kft.reporting.document import Molecule, Section
from kft.reporting.drawing import as_uri, narrow_svg, svg


def to_html(title: str, summary: Iterable[str], sections: Iterable[Section], made: str) -> str:
    """Write a report as a page. All texts are escaped, and the page forbids itself any request.

    Args:
        title: Its title.
        summary: The results in a few sentences.
        sections: Its sections.
        made: Who wrote it and when.

    Returns:
        The HTML.

    Example:
        >>> "<h1>a &lt;b&gt;</h1>" in to_html("a <b>", [], [], "")
        True
    """
    environment = Environment(
        autoescape=True,
        finalize=_printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "wide": lambda figure: as_uri(svg(figure)),
        "narrow": lambda figure: as_uri(narrow_svg(figure)),
    }
    sections = list(sections)
    script = ""
    if any(isinstance(block, Molecule) for section in sections for block in section.blocks):
        script = (files("kft.reporting") / "viewer.js").read_text("utf-8")
    template = environment.from_string((files("kft.reporting") / "page.html").read_text("utf-8"))
    return template.render(
        title=title,
        summary=list(summary),
        sections=sections,
        made=made,
        script=script,  # our own, and no other script may run
        script_hash=f"sha256-{b64encode(sha256(script.encode()).digest()).decode()}",
    )


def _printable(value: Any) -> Any:
    """Write out the control characters of every text that goes into the page."""
    if isinstance(value, str) and not hasattr(value, "__html__"):  # that is the template's own
        return harmless(value, keep="\n")
    return value
