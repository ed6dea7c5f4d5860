"""`kft predict`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kft.cli.options import (
    TABLES,
    BatchSize,
    Column,
    Inputs,
    Json,
    MaxLength,
    Out,
    SkipInvalid,
    Window,
    one_of,
)
from kft.cli.output import short_errors, show


def predict(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="Folder of kft finetune; or a .keras file, or the folder of an adapter.",
        ),
    ],
    inputs: Inputs,
    out: Annotated[
        str | None, typer.Argument(metavar="OUT", help=f"File to write: {TABLES}, .npz or .h5.")
    ] = None,
    out_option: Out = None,
    backbone: Annotated[
        str | None, typer.Option(help="Backbone of an adapter, if it is not where it was.")
    ] = None,
    batch_size: BatchSize = 32,
    max_length: MaxLength = None,
    window: Window = None,
    column: Column = None,
    skip_invalid: SkipInvalid = False,
    as_json: Json = False,
) -> None:
    """Predict for every record of a file; its rows and columns are kept in their order.

    Example: kft predict run new.csv --out predicted.csv
    """
    written = one_of(out, out_option, "OUT")
    with short_errors("The same command continues."):
        import kft

        sizes: dict[str, Any] = {
            "batch_size": batch_size,
            "max_length": max_length,
            "window": window,
            "column": column,
        }
        if kft.finetuning.is_run(model):
            opened = kft.finetuning.Run(model, backbone)
            opened.predict(inputs, out=written, skip_invalid=skip_invalid, **sizes)
        else:
            loaded = kft.load_model(model, backbone)
            kft.predict(loaded, inputs, out=written, skip_invalid=skip_invalid, **sizes)
        show({"written": written}, as_json, f"Written: {written}")
