"""`kft params`."""

import json
from typing import Annotated, Any

import typer

from kft.cli.options import ImageSize, Json, Revision
from kft.cli.output import short_errors, show


def params(
    backbone: Annotated[str, typer.Argument(help="Published name, folder or file.")],
    strategy: Annotated[
        str | None, typer.Option(help="Count what this strategy trains in its last phase.")
    ] = None,
    image_size: ImageSize = None,
    revision: Revision = None,
    as_json: Json = False,
) -> None:
    """Print the layers of a backbone, their parameters, and the revision of its weights.

    Example: kft params esm2_t6_8M_UR50D --strategy lora
    """
    with short_errors():
        import kft

        model = kft.load(backbone, image_size=image_size, revision=revision)
        loaded = getattr(model, "revision", None)
        if strategy is not None:
            chosen = kft.strategies.get(strategy)
            model = chosen.prepare(kft.Model(model, kft.heads.Regression()))
            chosen.phases(model)[-1].mark(model)
        table = kft.parameters(model)
        counts: dict[str, Any] = {
            "total": table.total,
            "trainable": table.trainable,
            "frozen": table.frozen,
            "revision": loaded,
        }
        rows = json.loads(table.to_frame().to_json(orient="records"))
        pinned = f"revision {loaded}" if loaded else "not pinned"
        show({**counts, "rows": rows}, as_json, f"{backbone}, {pinned}\n{table}")
