"""`kft finetune`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from kft.cli import options as of
from kft.cli.output import say, short_errors, show


def finetune(
    file: Annotated[
        str | None,
        typer.Argument(help="Table, FASTA file, image folder or data set.", show_default=False),
    ] = None,
    data: Annotated[str | None, typer.Option(help="The same as FILE.", hidden=True)] = None,
    target: of.Target = None,
    backbone: of.Backbone = None,
    revision: of.Revision = None,
    strategy: Annotated[str | None, typer.Option(help="How to train. [lora]")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Of the strategy, as rank=4."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("run"),
    inputs: of.InputColumns = None,
    split: of.SplitBy = None,
    groups: of.Groups = None,
    task: of.TaskName = None,
    sep: of.Sep = None,
    decimal: of.Decimal = None,
    missing: of.Missing = None,
    dropna: of.DropNa = False,
    weights: of.Weights = None,
    categories: of.Categories = None,
    seed: of.Seed = 0,
    epochs: of.Epochs = None,
    learning_rate: Annotated[float | None, typer.Option(help="The highest.")] = None,
    batch_size: of.BatchSize = 32,
    max_length: of.MaxLength = None,
    image_size: of.ImageSize = None,
    baselines: Annotated[bool, typer.Option(help="Score them, too.", show_default=False)] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what it takes; write nothing.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin again.")] = False,
    as_json: of.Json = False,
) -> None:
    """Fine-tune a backbone on your data; the folder RUN holds all of it.

    What is not given is guessed, and said. An interrupted run continues when the same
    command is given again.

    Example: kft finetune assay.csv --target activity --strategy lora --out run
    """
    source = of.one_of(file, data, "FILE")
    values: dict[str, Any] = {"options": of.parsed(option), "target": one_or_more(target)}
    values["inputs"] = one_or_more(inputs)
    kept = f"The same command continues; what is trained so far is in {out}."
    with short_errors(kept):
        import kft

        settings = kft.finetuning.Settings(
            source,
            backbone=backbone,
            revision=revision,
            strategy=strategy,
            split=split,
            groups=groups,
            task=task,
            sep=sep,
            decimal=decimal,
            missing=missing or None,
            dropna=dropna,
            weights=weights,
            categories=categories or None,
            seed=seed,
            epochs=epochs,
            learning_rate=learning_rate,
            batch_size=batch_size,
            max_length=max_length,
            image_size=image_size,
            **values,
        )
        if dry_run:
            plan = kft.finetuning.plan(settings)
            show(plan.to_dict(), as_json, str(plan))
            return
        run = kft.finetune(
            settings,
            out,
            overwrite=overwrite,
            baselines=baselines,
            log=say,
            command=["kft", *sys.argv[1:]],
        )
        show({"run": str(run.folder), **run.summary()}, as_json, run.text())


def one_or_more(names: list[str] | None) -> str | list[str] | None:
    """Return the only name, several as a list, and None for none.

    Args:
        names: What an option that can be repeated has received.
    """
    return names[0] if names and len(names) == 1 else names or None
