"""`kft segment`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from kft.cli.options import Json, Out, one_of
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
    ] = "kft_sam_tiny",
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
    window: Annotated[
        int | None,
        typer.Option(
            help="Side in pixels of the part of the image that the model is shown around each "
            "object, for small objects [default: the whole image]."
        ),
    ] = None,
    times: Annotated[
        float | None,
        typer.Option(help="Side of that part as a multiple of the longer side of each box."),
    ] = None,
    mirrored: Annotated[
        bool,
        typer.Option(
            "--mirrored",
            help="Take the mean of the image and its mirrored views; four times the time.",
        ),
    ] = False,
    clip_to_boxes: Annotated[
        bool, typer.Option("--clip-to-boxes", help="Cut masks to boxes that hold whole objects.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--everything", help="Find all objects, without prompts.")
    ] = False,
    points_per_side: Annotated[
        int | None,
        typer.Option(help="With --everything: points along each side of the grid [default: 32]."),
    ] = None,
    iou: Annotated[
        float | None,
        typer.Option(help="With --everything: least predicted IoU [default: of the model]."),
    ] = None,
    stability: Annotated[
        float | None,
        typer.Option(help="With --everything: least stability of a mask [default: of the model]."),
    ] = None,
    least_area: Annotated[
        int | None,
        typer.Option(help="With --everything: pixels of the smallest object [default: 0]."),
    ] = None,
    figure: Annotated[
        str | None, typer.Option(help="File of a figure, .png or .svg; its caption beside it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Segment the objects of an image that prompts show, or all of them.

    Example: kft segment cells.tif --boxes 10,20,60,70 --out masks.tif
    """
    from kft.cli.prompts import boxes_of, points_of  # numpy, which the help does without

    only_figure = figure is not None and out is None and out_option is None
    written = None if only_figure else one_of(out, out_option, "OUT, or --figure alone,")
    xy, marks = points_of(points or []) or (None, None)
    corners = boxes_of(boxes or [])
    if everything == (xy is not None or corners is not None):
        raise typer.BadParameter("give points or boxes, or --everything and neither of them.")
    of_grid: dict[str, Any] = {
        "points_per_side": points_per_side,
        "iou": iou,
        "stability": stability,
        "least_area": least_area,
    }
    of_grid = {name: value for name, value in of_grid.items() if value is not None}
    if of_grid and not everything:
        name = next(iter(of_grid)).replace("_", "-")
        raise typer.BadParameter(f"--{name} is for --everything: leave it out with prompts.")
    if everything and times is not None:
        raise typer.BadParameter("--times is for --boxes: give --window with --everything.")
    if clip_to_boxes and corners is None:
        raise typer.BadParameter("--clip-to-boxes is for --boxes: give boxes, or leave it out.")
    with short_errors():
        import kft
        from kft.plots import plot_masks, save_figure
        from kft.plots.style import checked_figure_path
        from kft.segmentation import Settings, save_masks, to_labels
        from kft.segmentation.masks import checked_masks_path

        if written is not None:
            checked_masks_path(written, "out")
        if figure is not None:
            checked_figure_path(figure, "figure")
        sam: Any = kft.load_model(model) if model.endswith(".keras") else kft.load(model)
        if everything:
            found = kft.segment_everything(sam, image, Settings(**of_grid), window, mirrored)
            masks, scores, how = found.masks, found.iou, "of a grid of points"
            left_out = found.dropped
        else:
            predicted = kft.segment(
                sam, image, xy, marks, corners, None, window, times, mirrored, clip_to_boxes
            )
            masks, scores, how = predicted.best, predicted.iou.max(axis=1), "of prompts"
            left_out = {}
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
            "left_out": left_out,
            "written": files,
        }
        show(about, as_json, _sentences(len(masks), left_out, files))


def _sentences(objects: int, left_out: Mapping[str, int], files: Sequence[str]) -> str:
    """Return how many objects there are, which masks were left out, and what was written."""
    said = [f"{objects:,} object{'s' * (objects != 1)}."]
    if left_out:
        numbers = ", ".join(f"{number:,} {why}" for why, number in left_out.items())
        said.append(f"Left out of the masks of the grid: {numbers}.")
    if left_out and not objects:
        said.append("A lower --iou or --stability keeps more of them.")
    return " ".join([*said, f"Written: {', '.join(files)}"])
