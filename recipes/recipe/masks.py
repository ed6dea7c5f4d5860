"""Parts of the recipes on segmentation: arguments, data, and scores of a SAM."""

import argparse
from pathlib import Path

import numpy as np

import kft
from kft.backbones.sam import Sam
from kft.segmentation import Predictor, Prompting, boxes_of, mask_iou, mean_iou, to_masks
from kft.segmentation.baselines import disc_at_point, ellipse_in_box, median_radius
from kft.segmentation.prompts import draw_points
from recipe.arguments import above_zero

SMALL_SAM = {
    "num_blocks": 1, "width": 32, "num_heads": 2, "image_size": 64, "prompt_width": 32,
    "decoder_heads": 4, "decoder_hidden_width": 64, "iou_width": 32,
}  # fmt: skip


def sam_arguments(doc, **defaults):
    """Make a parser for recipes that train a SAM.

    Args:
        doc: Docstring of the recipe.
        **defaults: Defaults that differ, by name of the argument.

    Returns:
        argparse.ArgumentParser.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    add, count = parser.add_argument, above_zero(int)
    add("--sam", default="kft_sam_tiny", help="name, folder or .pth file")
    add("--data", help="folder of images and label images; default: simulated cells")
    add("--epochs", type=count, default=5, help="epochs of training")
    add("--learning-rate", type=above_zero(float), default=5e-4, help="highest one")
    add("--batch-size", type=count, default=4, help="images in a step")
    add("--objects", type=count, default=8, help="objects of an image in a step")
    add("--rounds", type=count, default=2, help="rounds of prompts, at most 8")
    add("--seed", type=int, default=0, help="seed of prompts and of the order of images")
    add("--tiny", action="store_true", help="a run of a few seconds, to test the recipe")
    add("--out", type=Path, default=Path("out"), help="folder for results")
    parser.set_defaults(**defaults)
    return parser


def cells(args):
    """Return the data set, and how prompts are drawn from it.

    Args:
        args: Of `sam_arguments`; `--tiny` changes epochs.
    """
    prompting = Prompting(args.objects, args.rounds)
    if args.tiny:
        args.epochs, prompting = 1, Prompting(objects=2, rounds=1)
    if args.data:
        data = kft.data.read_segmentation(args.data)
    else:
        size, images = (64, 8) if args.tiny else (256, 60)
        data = kft.data.load("cells", images=images, size=size, seed=args.seed)
    print(data)
    return data, prompting


def prompted_sam(args):
    """Load the model, or with `--tiny` make a small one with random weights.

    Args:
        args: Arguments with `sam`, `tiny` and `seed`.
    """
    if args.tiny:
        return kft.backbones.randomised(Sam(**SMALL_SAM), args.seed)
    return kft.load(args.sam)


def mask_scores(sam, data):
    """Print the mean IoU of masks from one point and from one box, in the images of test.

    Args:
        sam: A SAM, or None for what costs nothing: a disc at the point, the ellipse in the box.
        data: The data set.
    """
    radius, ious = median_radius(data.train.targets), []
    pairs = zip(data.test.inputs, data.test.targets, strict=True)
    for i, (image, labels) in enumerate(pair for pair in pairs if pair[1].any()):
        masks, boxes = to_masks(labels), boxes_of(labels)
        points, _ = draw_points(masks, np.random.default_rng(i))
        if sam is None:
            found = disc_at_point(points, radius, labels.shape), ellipse_in_box(boxes, labels.shape)
        else:
            predictor = Predictor(sam).set_image(image)
            found = predictor.predict(points).best, predictor.predict(boxes=boxes).best
        ious.append([mask_iou(masks, one) for one in found])
    at_points, in_boxes = (mean_iou(each) for each in zip(*ious, strict=True))
    print(f"mean IoU of one point {at_points}, of one box {in_boxes}")


def trained_sam(args, strategy):
    """Train a SAM by a strategy, and print its scores before and after.

    Args:
        args: Of `sam_arguments`.
        strategy: Name of a strategy, or a strategy.

    Returns:
        The trained model.
    """
    data, prompting = cells(args)
    sam = prompted_sam(args)
    print("A disc at the point and the ellipse in the box: ", end="")
    mask_scores(None, data)
    print(f"{sam.name} as it is: ", end="")
    mask_scores(sam, data)
    done = kft.fit(
        sam, data, strategy, args.epochs, learning_rate=args.learning_rate,
        batch_size=args.batch_size, prompting=prompting, seed=args.seed, verbose=2,
    )  # fmt: skip
    print(f"{sam.name} after {args.epochs} epochs: ", end="")
    mask_scores(done.model, data)
    return done.model
