"""`kft compare`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kft.cli import options as of
from kft.cli.finetune import one_or_more
from kft.cli.output import say, short_errors, show


def compare(
    file: Annotated[
        str | None,
        typer.Argument(help="Table, FASTA file, image folder or data set.", show_default=False),
    ] = None,
    data: Annotated[str | None, typer.Option(help="The same as FILE.", hidden=True)] = None,
    target: of.Target = None,
    backbone: of.Backbone = None,
    strategy: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Repeat it for several. [all]")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Trainings of each strategy.")] = 3,
    out: Annotated[Path, typer.Option(help="Folder for trainings, table, figure.")] = Path(
        "comparison"
    ),
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
    epochs: of.Epochs = None,
    batch_size: of.BatchSize = 32,
    max_length: of.MaxLength = None,
    image_size: of.ImageSize = None,
    controls: Annotated[bool, typer.Option(help="Whether controls are trained.")] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what it takes; write nothing.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin again.")] = False,
    as_json: of.Json = False,
) -> None:
    """Train several strategies and compare them with baselines and controls.

    An interrupted comparison continues when the same command is given again.

    Example: kft compare assay.csv --strategy linear_probe --strategy lora --seeds 5
    """
    source = of.one_of(file, data, "FILE")
    columns: dict[str, Any] = {"target": one_or_more(target), "inputs": one_or_more(inputs)}
    columns |= {"split": split, "groups": groups, "task": task}
    columns |= {"sep": sep, "decimal": decimal, "missing": missing or None, "dropna": dropna}
    columns |= {"weights": weights, "categories": categories or None}
    with short_errors(f"The same command continues; finished trainings are in {out}."):
        import kft

        settings = kft.finetuning.Settings(
            source, backbone=backbone, image_size=image_size, **columns
        )
        read = kft.finetuning.filled(kft.finetuning.read_data(settings)[0])
        for note in read.notes:
            say(note)
        of_run: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size}
        of_run |= {"max_length": max_length, "controls": controls}
        backbone_ = kft.finetuning.new_backbone(kft.finetuning.described(settings, read))
        if dry_run:
            plan = kft.comparison.plan(backbone_, read, strategy or None, seeds, **of_run)
            show(plan.to_dict(), as_json, str(plan))
            return
        result = kft.compare(
            backbone_,
            read,
            strategy or None,
            seeds,
            **of_run,
            out=out,
            overwrite=overwrite,
            verbose=False,
        )
        show(result.record(), as_json, str(result))
