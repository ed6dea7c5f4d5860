"""`kft data`."""

import difflib
from typing import Annotated

import typer

from kft.cli.options import KNOWN, Json
from kft.cli.output import short_errors, show


def data(
    name: Annotated[
        str | None, typer.Argument(help=f"One of {KNOWN}. [all names]", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Print what a data set of kft holds and where it comes from; without a name, list them.

    Example: kft data amp
    """
    with short_errors():
        from kft import data as datasets

        if name is None:
            show(datasets.names(), as_json, "\n".join(datasets.names()))
            return
        if name not in datasets.names():
            close = difflib.get_close_matches(name, datasets.names(), n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"name must be one of {', '.join(datasets.names())}; received {name!r}.{hint} "
                f"kft explore FILE looks at a file of your own."
            )
        loaded = datasets.load(name)
        about = {
            "name": loaded.name,
            "task": str(loaded.task),
            "records": {part: len(records) for part, records in loaded.splits.items()},
            "classes": loaded.classes,
            "source": loaded.source,
            "licence": loaded.licence,
            "citation": loaded.citation,
            "sha256": loaded.checksum,
            "notes": loaded.notes,
        }
        show(about, as_json, str(loaded))
