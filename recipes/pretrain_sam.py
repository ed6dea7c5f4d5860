"""Can a SAM of 1.9 million parameters learn to segment from simulated cells alone?

Trains a small SAM from random weights in two stages. First its image encoder learns to say of each
pixel whether it is of a cell, and where the middle of that cell is. Then the whole model learns to
segment what points and boxes show. A run that is stopped continues when it is started again.

Data: simulated cells (Apache-2.0, no download), cut, inverted, tinted and with noise.
Command: KERAS_BACKEND=torch python recipes/pretrain_sam.py
Needs: 4 GB; about 30 minutes of one core. A long training is needed for good masks.
Expect: after 2,000 steps on 900 images a mean IoU of about 0.25 from one prompt, on the images of
training and too little for use; it was still rising.
"""

import argparse
from pathlib import Path

import keras
import numpy as np
import recipe
from recipe.simulated import dense, simulated

import kft
from kft import params
from kft.backbones.sam import Sam
from kft.data.dataset import Split
from kft.segmentation import Prompting

SHAPE = {
    "num_blocks": 4, "width": 128, "num_heads": 4, "global_blocks": (1, 3), "image_size": 256,
    "window": 8, "prompt_width": 128, "decoder_hidden_width": 512, "iou_width": 128,
}  # fmt: skip
TINY = {"num_blocks": 1, "width": 32, "global_blocks": (0,), "image_size": 64, "prompt_width": 32}
FINER = 2  # times the frequencies of the positions of prompts


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, count = parser.add_argument, recipe.above_zero(int)
    add("--images", type=count, default=2000, help="simulated images")
    add("--dense-epochs", type=count, default=5, help="epochs of the image encoder alone")
    add("--few-epochs", type=count, default=3, help="epochs of all of it, on few large cells")
    add("--epochs", type=count, default=2, help="epochs of all of it, with one prompt")
    add("--last-epochs", type=count, default=1, help="epochs with prompts that correct")
    add("--objects", type=count, default=8, help="objects of an image in a step")
    add("--rounds", type=count, default=2, help="rounds of prompts, at most 8")
    add("--batch-size", type=count, default=4, help="images in a step")
    add("--learning-rate", type=recipe.above_zero(float), default=1e-3, help="highest one")
    add("--seed", type=int, default=0, help="seed of images, weights, prompts and order")
    add("--tiny", action="store_true", help="a run of a few seconds, to test the recipe")
    add("--out", type=Path, default=Path("out/pretrain_sam"), help="folder for results")
    args = parser.parse_args()
    if args.tiny:
        args.images, args.dense_epochs, args.few_epochs, args.objects = 8, 1, 1, 2
        args.epochs = args.last_epochs = 1
    return args


def look_near_prompts(sam):
    """Set random weights so that attention between prompts and image begins with what is near.

    Positions vary faster, since cells are small, and queries are projected as keys are: positions
    that are near each other then have a large product.
    """
    matrix = sam.get_layer("prompt_encoder").pe_layer.matrix
    matrix.assign(FINER * matrix)
    variables = {w.path: w.variable for w in params.weights(sam)}
    for path, kernel in variables.items():
        if path.endswith(("to_image/q_proj/kernel", "to_token/q_proj/kernel")):
            kernel.assign(2 * kernel)
            variables[path.replace("q_proj", "k_proj")].assign(kernel)


def main():
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    sam = kft.backbones.randomised(Sam(**{**SHAPE, **(TINY if args.tiny else {})}), args.seed)
    look_near_prompts(sam)
    print(f"{sam.count_params():,} parameters")
    images, labels = simulated(args.images, sam.image_size, args.seed)
    options = {"learning_rate": args.learning_rate, "seed": args.seed, "verbose": 2}

    outputs = keras.layers.Dense(48, name="dense")(sam.embedding)
    encoder = keras.Model(sam.image_encoder.input, outputs, name="dense_encoder")
    targets = np.stack([dense(x, sam.image_size) for x in labels])
    kft.fit(
        encoder, (images, targets), epochs=args.dense_epochs, batch_size=2 * args.batch_size,
        loss="mse", encode=sam.encode, resume=args.out / "dense.npz", **options,
    )  # fmt: skip

    everything = Split(images, labels)
    few = Split(*simulated(args.images // 2, sam.image_size, args.seed, few=True))
    rate = args.learning_rate / 2  # norms behind the blocks of the mask decoder want a smaller one
    stages = (
        ("few", few, "prompt_and_decoder", args.few_epochs, args.objects // 2, 1, rate),
        ("all", everything, "full", args.epochs, args.objects, 1, rate),
        ("corrected", everything, "full", args.last_epochs, args.objects, args.rounds, rate / 2),
    )
    for name, data, strategy, epochs, objects, rounds, options["learning_rate"] in stages:
        kft.fit(
            sam, data, strategy, epochs, batch_size=args.batch_size,
            prompting=Prompting(objects, rounds, focal=0.5), resume=args.out / f"{name}.npz",
            **options,
        )  # fmt: skip
    kft.backbones.save(sam, args.out / "model", "float16")
    print(f"Written: {args.out}/model, which kft.load reads.")


if __name__ == "__main__":
    main()
