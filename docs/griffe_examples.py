"""A griffe extension: the section "Example:" of docstrings is rendered as code."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Renames "Example:" to "Examples:", the only title of that section that griffe knows."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rename the section in the docstring of an object that was loaded."""
        if not obj.is_alias and obj.docstring:
            value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.M)
            obj.docstring.value = value
