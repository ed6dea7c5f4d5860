"""What does a stage of a vision backbone respond to?

Changes an image so that an early and a late stage respond more strongly (Deep Dream), and grows
images from noise to which single channels respond (feature visualisation).

Data: a sample photograph of scikit-learn, china.jpg (danielbuechele, CC BY 2.0) or flower.jpg
(vultilion, CC BY 2.0); or your own file, `--image`.
Command: KERAS_BACKEND=tensorflow python recipes/deep_dream.py
Needs: the extras vision and imagenet; 1.3 GB; 90 s of one core with TensorFlow; a gradient takes
six times as long with torch, twenty times with JAX.
Expect: docs/vision.md
"""

import argparse
from pathlib import Path

import numpy as np
import recipe
from PIL import Image
from sklearn.datasets import load_sample_image

from kft import plots
from kft.interpretation import dreaming

SAMPLES = ("china.jpg", "flower.jpg")
STAGES = {"early": 0.25, "late": 0.65}  # how deep, where no stage is named
DEPTHS = (0.05, 0.25, 0.45, 0.65, 0.85)  # rows of the grid


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, count, above = parser.add_argument, recipe.above_zero(int), recipe.above_zero(float)
    add("--image", default=SAMPLES[0], help=f"your own file, or {' or '.join(SAMPLES)}")
    add("--backbone", default="efficientnet_lite0", help="name, folder or file of a vision model")
    add("--random", action="store_true", help="random weights, to see the effect of training")
    add("--stages", nargs="+", help="names of stages; default: an early and a late one")
    add("--channel", type=int, help="maximise only this channel; default: the whole stage")
    add("--steps", type=count, default=10, help="steps of gradient ascent at each size")
    add("--octaves", type=count, default=4, help="number of sizes, each 1.4 times the last")
    add("--step-size", type=above, default=0.01, help="mean change of a pixel per step")
    add("--channels", type=count, default=4, help="columns of the grid of features")
    add("--seed", type=int, default=0, help="seed of shifts and noise")
    add("--tiny", action="store_true", help="a run of a few seconds, to test the recipe")
    add("--out", type=Path, default=Path("out/deep_dream"), help="folder for results")
    parser.set_defaults(dtype=None)
    args = parser.parse_args()
    if args.image not in SAMPLES and not Path(args.image).is_file():
        parser.error(f"--image: there is no file and no sample {args.image}")
    return args


def at(stages, depths):
    """Return the names of the stages at these depths, from 0 (first) to 1 (last)."""
    return [stages[round(depth * (len(stages) - 1))] for depth in depths]


def main():
    args = arguments()
    backbone = recipe.backbone(args)
    image = load_sample_image(args.image) if args.image in SAMPLES else args.image
    known = dreaming.stages_of(backbone)
    stages, rows = args.stages or at(known, STAGES.values()), at(known, DEPTHS)
    features = {"steps": 20, "octaves": 3}
    if args.tiny:
        args.steps, args.octaves, args.channels = 1, 1, 2
        rows, features = rows[:2], {"steps": 1, "octaves": 1}
    args.out.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        images = dreaming.dream(
            backbone,
            image,
            stage,
            args.channel,
            steps=args.steps,
            octaves=args.octaves,
            step_size=args.step_size,
            seed=args.seed,
        )
        name = args.out / f"{Path(args.image).stem}_{stage}.png"
        Image.fromarray(np.uint8(np.rint(255 * images))).save(name)
        print(f"{name}: {images.shape[1]} x {images.shape[0]} pixels, dreamt by {stage}.")
    grid = dreaming.feature_grid(backbone, rows, args.channels, seed=args.seed, **features)
    how = "{steps} steps at each of {octaves} sizes, by".format(**features)
    figure, caption = plots.plot_features(grid, rows, how=f"{how} {args.backbone}.")
    plots.save_figure(figure, caption, args.out / "features.png")
    print(f"\n{caption}\n\nWritten: {args.out}, features.png with its caption.")


if __name__ == "__main__":
    main()
