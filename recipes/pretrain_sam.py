"""Can a SAM of 1.9 million parameters learn to segment from simulated cells alone?

Trains a small SAM in two stages. Its weights begin so that its masks are discs at the prompts. Then
its image encoder learns to say of each pixel whether it is of a cell, and where the middle of that
cell is, and masks are made of that. At last the whole mask decoder learns from points and boxes. A
step is on windows of images. A run that is stopped goes on when it is started again.

Data: simulated cells (Apache-2.0, no download), cut, enlarged, inverted, tinted and with noise.
Command: KERAS_BACKEND=torch python recipes/pretrain_sam.py
Needs: 4 GB; about 40 minutes of one core.
Expect: docs/segmentation.md
"""

import argparse
from pathlib import Path

import keras
import recipe
from keras import ops
from recipe.sam_direct import MASK, TRAINED, Direct
from recipe.sam_on_windows import Prompted
from recipe.sam_prompts import open_decoder
from recipe.sam_start import begin
from recipe.sam_windows import Windows
from recipe.simulated import simulated

import kft
from kft.backbones.sam import Sam

SHAPE = {
    "num_blocks": 4, "width": 128, "num_heads": 4, "global_blocks": (3,), "image_size": 256,
    "patch_size": 8, "window": 8, "prompt_width": 128, "decoder_hidden_width": 512,
    "iou_width": 128,
}  # fmt: skip
TINY = {"num_blocks": 1, "global_blocks": (0,), "image_size": 64, "window": 4}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, count = parser.add_argument, recipe.above_zero(int)
    add("--images", type=count, default=1000, help="simulations, of which two parts are cut")
    add("--steps", type=count, default=4500, help="steps of the image encoder")
    add("--prompted-steps", type=count, default=3000, help="steps of the whole model")
    add("--objects", type=count, default=16, help="objects of a window in a step")
    add("--prompted-objects", type=count, default=6, help="the same, of the whole model")
    add("--batch-size", type=count, default=3, help="windows in a step")
    add("--learning-rate", type=recipe.above_zero(float), default=1e-3, help="of the first stage")
    add("--seed", type=int, default=32, help="seed of images, weights, prompts and order")
    add("--tiny", action="store_true", help="a run of a few seconds, to test the recipe")
    add("--out", type=Path, default=Path("out/pretrain_sam"), help="folder for results")
    args = parser.parse_args()
    if args.tiny:
        args.images, args.steps, args.prompted_steps = 4, 3, 3
    return args


def train(learner, windows, rate, folder, every=100):
    """Train, and keep the state of each `every` steps in a folder."""
    steps = len(windows)
    schedule = keras.optimizers.schedules.CosineDecay(
        rate / 50, steps, alpha=0.05, warmup_target=rate, warmup_steps=min(50, steps // 2)
    )  # fmt: skip
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.01, global_clipnorm=1.0)
    learner.compile(optimizer, loss=lambda _, losses: ops.mean(losses))
    windows.steps = min(every, steps)
    learner(windows[0][0])  # builds it
    kept = keras.callbacks.BackupAndRestore(folder, delete_checkpoint=False)
    learner.fit(windows, epochs=-(-steps // every), verbose=2, callbacks=[kept])


def main():
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    size = TINY["image_size"] if args.tiny else SHAPE["image_size"]
    images, labels = simulated(args.images, size, args.seed)
    sam = Sam(**{**SHAPE, **(TINY if args.tiny else {})})
    begin(sam, images[:4], args.seed, MASK)
    print(f"{sam.count_params():,} parameters; {len(images):,} images")
    side, patch = sam.grid // 2, sam.image_size // sam.grid
    stages = (
        ("direct", Direct(sam), args.steps, args.objects, args.learning_rate),
        # What the first stage has learned is lost at a higher rate.
        ("prompted", Prompted(sam), args.prompted_steps, args.prompted_objects, 1.5e-4),
    )
    for name, learner, steps, objects, rate in stages:
        if name == "direct":
            kft.train_only(sam, TRAINED)
        else:
            open_decoder(sam, MASK)
            kft.unfreeze(sam)
        windows = Windows(images, labels, patch, side, steps, args.batch_size, objects, args.seed)
        train(learner, windows, rate, args.out / name)
    kft.backbones.save(sam, args.out / "model", "float16")
    print(f"Written: {args.out}/model, which kft.load reads.")


if __name__ == "__main__":
    main()
