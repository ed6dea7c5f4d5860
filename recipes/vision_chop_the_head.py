"""How few images does a network of photographs need, once its head is replaced?

EfficientNet-Lite0 was trained on ImageNet. Its head is replaced, and a new one is trained to
distinguish gravitational-wave chirps and glitches on frozen features, with few images per class and
with more. For comparison the same network is trained from scratch, and the nearest neighbours in
raw pixels vote.

Data: simulated by kft; "digits" (UCI, CC BY 4.0), or your own folder with a folder per class.
Command: KERAS_BACKEND=torch python recipes/vision_chop_the_head.py --seeds 1
Needs: the extras vision and imagenet; 2 GB; 46 minutes of one busy core, most of them from scratch.
Expect: accuracy 0.865, 0.914, 0.942 with 20, 100, 500 images per class; see docs/vision.md
"""

from dataclasses import replace

import pandas as pd
import recipe

import kft
from kft import plots

NAMES = {"linear_probe": "new head on ImageNet's features", "from_scratch": "from scratch"}


def main():
    number = recipe.above_zero(int)
    parser = recipe.image_arguments(__doc__, learning_rate=1e-3)
    add, known = parser.add_argument, kft.strategies.names()
    several = {"nargs": "+", "metavar": "N"}
    counts = "training images per class"
    add("--counts", type=number, default=[20, 100, 500], help=counts, **several)
    also = "in addition to from_scratch"
    add("--strategies", default=["linear_probe"], choices=known, help=also, **several)
    add("--seeds", type=number, default=3, help="trainings of each strategy")
    add("--updates", type=number, default=300, help="smallest number of steps of a training")
    args = parser.parse_args()
    counts = sorted({min(n, 4) for n in args.counts}) if args.tiny else sorted(set(args.counts))
    # 70% of the images are for training, of eight classes; a few more since classes vary in size.
    data = recipe.data(args, images=round(12.5 * counts[-1]) + 60)
    backbone, curves, out = recipe.backbone(args), {}, args.out / "vision_chop_the_head"
    for count in counts:
        print(f"\n{count} images per class")
        part = replace(
            data,
            train=recipe.few_of_each(data.train, count, args.seed),
            # With few training images there are few validation images too.
            valid=recipe.few_of_each(data.valid, max(2, count // 4), args.seed),
        )
        steps = -(-len(part.train) // args.batch_size)
        result = kft.compare(
            backbone,
            part,
            [
                *args.strategies,
                kft.strategies.get("from_scratch", learning_rate=args.learning_rate),
            ],
            seeds=range(args.seed, args.seed + (1 if args.tiny else args.seeds)),
            head=recipe.head,
            epochs=1 if args.tiny else max(args.epochs or 6, args.updates // steps),
            batch_size=args.batch_size,
            controls=False,
            out=out / f"{count}_a_class",
        )
        for row in result.rows:
            if row.scores and row.name != "majority class":
                name = "nearest neighbours" if "nearest" in row.name else row.name
                curve = curves.setdefault(NAMES.get(name, name), {})
                curve[count] = row.scores[result.metric].interval()
    made = f"{args.backbone} at {backbone.image_size[0]} pixels; intervals are over test images and"
    figure, caption = plots.plot_learning_curve(
        dict(reversed(curves.items())),
        result.metric,
        data.name,
        len(data.test),
        "training images a class",
        f"{made} seeds ({len(result.seeds)}).",
    )
    plots.save_figure(figure, caption, out / "learning_curve.png")
    rows = [(name, n, *score) for name, curve in curves.items() for n, score in curve.items()]
    columns = ["method", "images", result.metric, "low", "high"]
    pd.DataFrame(rows, columns=columns).to_csv(out / "learning_curve.csv", index=False)
    print(f"\n{caption}\n\nWritten: {out}, learning_curve.png with its caption and .csv.")


if __name__ == "__main__":
    main()
