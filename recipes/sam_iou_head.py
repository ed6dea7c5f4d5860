"""Does a SAM score its own masks better once the head that predicts their IoU is trained alone?

Lists all parameters of a SAM, freezes all but `mask_decoder.iou_prediction_head`, lists them again,
trains on label images, and saves the model as samLE_funfrozen{n}: its masks stay as they are.

Data: simulated cells (Apache-2.0, no download); or your own folder, `--data`, see
docs/segmentation.md.
Command: KERAS_BACKEND=torch python recipes/sam_iou_head.py --sam sam-vit-base --data FOLDER
Needs: the extra segmentation; for sam-vit-huge 16 GB of memory, and its weights from the Hugging
Face hub or `--sam FILE.pth`. Without `--sam` a small shape with random weights shows the steps in a
minute of one core; nothing can be learned from its scores.
Expect: no score is known yet, none was measured with the published weights.
"""

import argparse
from pathlib import Path

import recipe

import kft
from kft.backbones.sam import Sam, original_name
from kft.segmentation import Prompting

HEAD = "mask_decoder.iou_prediction_head"
SMALL = {
    "num_blocks": 2, "width": 32, "num_heads": 2, "global_blocks": (1,), "image_size": 64,
    "prompt_width": 32, "decoder_heads": 4, "decoder_hidden_width": 64, "iou_width": 32,
}  # fmt: skip


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, count = parser.add_argument, recipe.above_zero(int)
    add("--sam", help="sam-vit-base, -large or -huge, a folder, or a .pth file; default: small")
    add("--data", help="folder of images and label images; default: simulated cells")
    add("--epochs", type=count, default=5, help="epochs of training")
    add("--learning-rate", type=recipe.above_zero(float), default=1e-3, help="highest one")
    add("--batch-size", type=count, default=2, help="images in a step")
    add("--objects", type=count, default=8, help="objects of an image in a step")
    add("--rounds", type=count, default=3, help="rounds of prompts, at most 8")
    add("--seed", type=int, default=0, help="seed of prompts and of the order of images")
    add("--tiny", action="store_true", help="a run of a few seconds, to test the recipe")
    add("--out", type=Path, default=Path("out/sam_iou_head"), help="folder for results")
    return parser.parse_args()


def listed(sam):
    """Print each parameter as the original code names it, and return how many numbers learn."""
    for row in kft.parameters(sam).rows:
        name = original_name(f"{row.module}/{row.weight}")
        print(f"{name:78} {'trainable' if row.trainable else 'frozen':9} {row.parameters:>11,}")
    table = kft.parameters(sam)
    print(
        f"{len(table.rows)} parameters, {table.total:,} numbers, {table.trainable:,} trainable.\n"
    )
    return table.trainable


def main():
    args = arguments()
    prompting = Prompting(args.objects, args.rounds)
    if args.tiny:
        args.epochs, prompting = 1, Prompting(objects=2, rounds=1)
    if args.sam:
        sam = kft.load(args.sam)
    else:
        sam = kft.backbones.randomised(Sam(**SMALL), args.seed)
        print("A small shape with random weights: give --sam to adapt a trained one.")
    images = 8 if args.tiny else 60
    simulated = {"images": images, "size": 64 if args.tiny else 256, "seed": args.seed}
    data = (
        kft.data.read_segmentation(args.data) if args.data else kft.data.load("cells", **simulated)
    )
    print(data)
    listed(sam)
    kft.train_only(sam, HEAD)
    trainable = listed(sam)
    masks = kft.fingerprint(sam, trainable=False)
    done = kft.fit(
        sam, data, epochs=args.epochs, learning_rate=args.learning_rate,
        batch_size=args.batch_size, prompting=prompting, seed=args.seed,
    )  # fmt: skip
    for row in done.history:
        print(
            f"epoch {row['epoch'] + 1}: error of the predicted IoU (squared) "
            f"{row['iou_loss']:.4f} in train, {row['val_iou_loss']:.4f} in valid; mean IoU of the "
            f"mask it calls the best {row['val_iou']:.3f}"
        )
    unmoved = kft.fingerprint(sam, trainable=False) == masks
    print(f"All other weights are {'as they were' if unmoved else 'changed, which is a fault'}.")
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"samLE_funfrozen{trainable}.keras"
    sam.save(path)
    print(f"Written: {path}")


if __name__ == "__main__":
    main()
