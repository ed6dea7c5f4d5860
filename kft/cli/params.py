"""`kft params`."""

import json
from typing import Annotated

import typer

from kft.cli.options import ImageSize, Json
from kft.cli.output import short_errors, show


def params(
    backbone: Annotated[str, typer.Argument(help="Published name, folder or file.")],
    strategy: Annotated[
        str | None, typer.Option(help="Count what this strategy trains in its last phase.")
    ] = None,
    image_size: ImageSize = None,
    as_json: Json = False,
) -> None:
    """Print the layers of a backbone and their parameters; no weights are loaded.

    Example: kft params esm2_t6_8M_UR50D --strategy lora
    """
    with short_errors():
        import kft

        model = kft.load(backbone, weights=False, image_size=image_size)
        if strategy is not None:
            chosen = kft.strategies.get(strategy)
            model = chosen.prepare(kft.Model(model, kft.heads.Regression()))
            chosen.phases(model)[-1].mark(model)
        table = kft.parameters(model)
        counts = {"total": table.total, "trainable": table.trainable, "frozen": table.frozen}
        rows = json.loads(table.to_frame().to_json(orient="records"))
        show({**counts, "rows": rows}, as_json, str(table))
