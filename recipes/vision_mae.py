"""What does a vision transformer learn from images without labels, by masked autoencoding?

Trains a small ViT as a masked autoencoder and compares a linear probe on it before and after, on
the same labels. A run that is stopped continues when it is started again.

Data: simulated by kft; "digits" (UCI, CC BY 4.0), or your own folder with a folder per class.
Command: KERAS_BACKEND=torch python recipes/vision_mae.py --data digits
Needs: the extra vision; 2 GB, two minutes of one core.
Expect: relative error of hidden patches 0.34 on the validation split, where the mean patch has 1;
    test accuracy of the probe 0.796 [0.748, 0.841] before, 0.967 [0.944, 0.985] after (one seed).
"""

import pandas as pd
import recipe

import kft
from kft import plots
from kft.backbones.vision.models import VisionTransformer
from kft.training import pretraining


def arguments():
    defaults = {"backbone": None, "image_size": 32, "epochs": 30, "batch_size": 64}
    parser = recipe.image_arguments(__doc__, learning_rate=2e-3, **defaults)
    add, count = parser.add_argument, recipe.above_zero(int)
    add("--images", type=count, default=2000, help="number of images to simulate")
    add("--patch", type=count, default=4, help="side of a patch in pixels")
    add("--blocks", type=count, default=4, help="blocks of a new backbone, without --backbone")
    add("--width", type=count, default=64, help="width of a new backbone")
    add("--heads", type=count, default=4, help="attention heads of a new backbone")
    add("--mask-ratio", type=recipe.fraction, default=0.75, help="fraction of hidden patches")
    return parser.parse_args()


def new_backbone(args):
    """Make a new backbone, or load the one of --backbone."""
    if args.backbone:
        return recipe.backbone(args)
    size = {"patch_size": args.patch, "image_size": args.image_size}
    backbone = VisionTransformer("vit", args.blocks, args.width, args.heads, **size)
    return kft.backbones.randomised(backbone, args.seed)


def probe(backbone, data, when):
    """Solve for a linear head on the frozen backbone and print its scores on the test split."""
    model = kft.Model(backbone, kft.heads.for_data(data))
    kft.fit(model, data, "linear_probe", seed=0, verbose=0)
    for name, value in kft.evaluate(model, data).items():
        print(f"Linear probe {when}: {name} {value} (test, n = {len(data.test)})")
    kft.unfreeze(backbone)


def main():
    args = arguments()
    data, out = recipe.data(args, images=args.images), args.out / "vision_mae"
    if args.tiny:
        args.epochs, args.blocks, args.width = 2, 1, 16
    before, backbone = new_backbone(args), new_backbone(args)
    print(kft.parameters(backbone))
    done = pretraining.pretrain_images(
        backbone,
        data.train.inputs,
        data.valid.inputs,
        epochs=args.epochs,
        batch_size=args.batch_size,
        mask_ratio=args.mask_ratio,
        learning_rate=args.learning_rate,
        seed=args.seed,
        out=out,
        verbose=2,
        decoder_width=args.width if args.tiny else 64,
    )
    pd.DataFrame(done.history).to_csv(out / "history.csv", index=False)
    print()
    probe(before, data, "before")
    probe(backbone, data, "after")
    reconstructed = pretraining.reconstruct(
        done.model, data.test.inputs, args.seed, args.mask_ratio
    )
    which = f"{data.name}, test split"
    figure, caption = plots.plot_reconstructions(*reconstructed, done.model.patch_size, which)
    plots.save_figure(figure, caption, out / "reconstructions.png")
    backbone.save(out / "backbone.keras")
    print(f"\n{caption}\n\nWritten: {out}, history.csv, backbone.keras and the figure.")


if __name__ == "__main__":
    main()
