"""What does a SAM see where a point is set, where a box is drawn, and without any prompt?

Nothing is trained. Writes three label images, and a figure of each with its caption.

Data: one simulated image of cells (Apache-2.0, no download); or your own image, `--image`.
Command: KERAS_BACKEND=torch python recipes/sam_prompt.py --image FILE --points 120,80 60,70
Needs: 4 GB and a minute of one core.
Expect: docs/segmentation.md
"""

import argparse
from pathlib import Path

import numpy as np
import recipe

from kft.data.segmentation.cells import simulate_cells
from kft.plots import plot_masks, save_figure
from kft.segmentation import Predictor, Settings, boxes_of, save_masks, to_labels, to_masks
from kft.segmentation.prompts import draw_points


def numbers(text):
    """Return the numbers of "x,y" or "x0,y0,x1,y1"."""
    return [float(number) for number in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, count = parser.add_argument, recipe.above_zero(int)
    add("--sam", default="kft_sam_tiny", help="name, folder or .pth file")
    add("--image", type=Path, help="an image; default: a simulated one, prompted by its truth")
    add("--points", type=numbers, nargs="+", help="X,Y of each object, in pixels")
    add("--boxes", type=numbers, nargs="+", help="X0,Y0,X1,Y1 of each object, in pixels")
    add("--points-per-side", type=count, default=20, help="of the grid of automatic masks")
    add("--iou", type=float, help="least predicted IoU of automatic masks [of the model]")
    add("--stability", type=float, help="least stability of automatic masks [of the model]")
    add("--seed", type=int, default=0, help="of the random weights of --tiny")
    add("--tiny", action="store_true", help="a run of a few seconds, to test the recipe")
    add("--out", type=Path, default=Path("out/sam_prompt"), help="folder for results")
    args = parser.parse_args()
    side = 4 if args.tiny else args.points_per_side
    image, points, boxes = args.image, args.points, args.boxes
    if image is None:
        image, labels = simulate_cells(64 if args.tiny else 256, seed=1)
        points, _ = draw_points(to_masks(labels), np.random.default_rng(0))
        boxes = boxes_of(labels)
    sam = recipe.prompted_sam(args)
    predictor = Predictor(sam).set_image(image)
    settings = Settings(side, iou=args.iou, stability=args.stability, most_area=0.2)
    found = {"everything": predictor.everything(settings).masks}
    for name, given in (("points", points), ("boxes", boxes)):
        if given is not None:
            found[name] = predictor.predict(**{name: given}).best
    args.out.mkdir(parents=True, exist_ok=True)
    for name, masks in found.items():
        prompts = {name: {"points": points, "boxes": boxes}[name]} if name != "everything" else {}
        figure, caption = plot_masks(
            image, to_labels(masks), how=f"predicted by {sam.name} from {name}", **prompts
        )
        save_masks(masks, args.out / f"{name}.tif", image)
        save_figure(figure, caption, args.out / f"{name}.png")
        print(f"{len(masks)} masks of {name}. {caption}\n")
    print(f"Written: label images (.tif) and figures (.png) in {args.out}")


if __name__ == "__main__":
    main()
