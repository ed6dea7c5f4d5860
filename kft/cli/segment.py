"""`kft segment`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kft.cli.options import Json, Out
from kft.cli.output import short_errors, show


def segment(
    image: Annotated[Path, typer.Argument(help="Image, of 8 or 16 bits.")],
    out: Annotated[
        str | None,
        typer.Argument(metavar="OUT", help="File of masks: .tif, .png, .json (COCO) or .npy."),
    ] = None,
    out_option: Out = None,
    model: Annotated[
        str, typer.Option(help="Name, folder or file of a SAM; or a .keras file.")
    ] = "sam-vit-base",
    points: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X,Y",
            help='Points of an object, as "120,80 60,70,0", where 0 marks one beside it; repeat '
            "for each object. Or a CSV file: x, y and optionally object, label.",
        ),
    ] = None,
    boxes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X0,Y0,X1,Y1",
            help="Box of an object; repeat for each. Or a CSV file with these columns.",
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--everything", help="Find all objects, without prompts.")
    ] = False,
    points_per_side: Annotated[
        int, typer.Option(help="With --everything: points along each side of the grid.")
    ] = 32,
    iou: Annotated[float, typer.Option(help="With --everything: least predicted IoU.")] = 0.88,
    stability: Annotated[
        float, typer.Option(help="With --everything: least stability of a mask.")
    ] = 0.95,
    least_area: Annotated[
        int, typer.Option(help="With --everything: pixels of the smallest object.")
    ] = 0,
    figure: Annotated[
        str | None, typer.Option(help="File of a figure, .png or .svg; its caption beside it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Segment the objects of an image that prompts show, or all of them.

    Example: kft segment cells.tif --boxes 10,20,60,70 --out masks.tif
    """
    from kft.cli.prompts import boxes_of, points_of  # numpy, which the help does without

    written = one_written(out, out_option, figure)
    xy, marks = points_of(points or []) or (None, None)
    corners = boxes_of(boxes or [])
    if everything == (xy is not None or corners is not None):
        raise typer.BadParameter("give points or boxes, or --everything and neither of them.")
    with short_errors():
        import kft
        from kft.plots import plot_masks, save_figure
        from kft.segmentation import Settings, save_masks, to_labels
        from kft.segmentation.masks import checked_masks_path

        if written is not None:
            checked_masks_path(written)
        sam: Any = kft.load_model(model) if model.endswith(".keras") else kft.load(model)
        if everything:
            settings = Settings(
                points_per_side, iou=iou, stability=stability, least_area=least_area
            )
            found = kft.segment_everything(sam, image, settings)
            masks, scores, how = found.masks, found.iou, "of a grid of points"
        else:
            predicted = kft.segment(sam, image, xy, marks, corners)
            masks, scores, how = predicted.best, predicted.iou.max(axis=1), "of prompts"
        files = [path for path in (written, figure) if path is not None]
        if written is not None:
            save_masks(masks, written, image, scores)
        if figure is not None:
            how = f"predicted by {sam.name} {how}"
            drawn = plot_masks(image, to_labels(masks), None, xy, marks, corners, image.name, how)
            save_figure(*drawn, figure)
        about = {
            "objects": len(masks),
            "pixels": [int(mask.sum()) for mask in masks],
            "predicted_iou": [float(score) for score in scores],
            "written": files,
        }
        show(about, as_json, f"{len(masks):,} objects. Written: {', '.join(files)}")


def one_written(out: str | None, out_option: str | None, figure: str | None) -> str | None:
    """Return the file of masks, or None if only a figure is asked for.

    Args:
        out: The argument OUT, or None.
        out_option: The option --out, or None.
        figure: The option --figure, or None.

    Raises:
        typer.BadParameter: OUT was given twice, or neither OUT nor --figure.
    """
    given = [path for path in (out, out_option) if path is not None]
    if len(given) > 1 or not (given or figure):
        raise typer.BadParameter(f"give OUT once, or --figure; received OUT {len(given)} times.")
    return given[0] if given else None
