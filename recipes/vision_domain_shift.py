"""Does a model of one detector work on another, and how many new images does it need if not?

A head is trained on images of one gravitational-wave detector and tested on another detector. Then
it is trained further on 20, 100 and 500 images of the second, and compared with a head that is
trained on those alone. The same question arises with microscopes, telescopes or hospitals.

Data: simulated by kft (detectors "design" and "early").
Command: KERAS_BACKEND=torch python recipes/vision_domain_shift.py
Needs: the extras vision and imagenet; 2 GB, 4 minutes on a busy machine.
Expect: docs/vision.md
"""

from dataclasses import replace

import pandas as pd
import recipe

import kft
from kft import plots

AFTER, ALONE = "trained on the first, then on the second", "trained on the second alone"


def accuracy(model, data):
    """Compute the accuracy on the test split, with its interval."""
    return kft.evaluate(model, data)["accuracy"]


def main():
    number = recipe.above_zero(int)
    parser = recipe.image_arguments(__doc__, epochs=30)
    parser.add_argument("--first", default="design", help="detector to train on first")
    parser.add_argument("--second", default="early", help="detector to test and train on next")
    parser.add_argument("--images", type=number, default=3000, help="images to simulate of each")
    counts = {"nargs": "+", "metavar": "N", "help": "images of the second detector"}
    parser.add_argument("--counts", type=number, default=[20, 100, 500], **counts)
    args = parser.parse_args()
    out = args.out / "vision_domain_shift"
    first, second = (
        recipe.data(args, images=args.images, detector=name) for name in (args.first, args.second)
    )
    options = {"seed": args.seed, "batch_size": args.batch_size, "verbose": 0}

    def trained(model, data):
        print(f"  {len(data.train):,} images ...", flush=True)
        return kft.fit(model, data, recipe.strategy(args, "head_only"), **options).model

    def new():
        return kft.Model(recipe.backbone(args), recipe.head(first))

    print(f"Training on {args.first}")
    # In closed form, since the training on the second detector should start from an optimum.
    start = kft.fit(new(), first, "linear_probe", **options).model
    at_home, moved = accuracy(start, first), accuracy(start, second)
    print(f"Accuracy on {args.first} {at_home}, on {args.second} as it is {moved}")
    weights, curves = start.get_weights(), {AFTER: {}, ALONE: {}}
    for count in [8] if args.tiny else args.counts:
        few = -(-count // len(first.classes))
        train, valid = second.train, second.valid
        part = replace(
            second,
            train=recipe.few_of_each(train, few, args.seed),
            valid=recipe.few_of_each(valid, max(1, few // 4), args.seed),
        )
        start.set_weights(weights)
        curves[AFTER][len(part.train)] = accuracy(trained(start, part), second)
        curves[ALONE][len(part.train)] = accuracy(trained(new(), part), second)
    curves["trained on the first, as it is"] = dict.fromkeys(curves[AFTER], moved)
    curves["that, on the first's own test images"] = dict.fromkeys(curves[AFTER], at_home)
    made = f"Heads on frozen {args.backbone}; first {args.first}, second {args.second}."
    figure, caption = plots.plot_learning_curve(
        curves,
        "accuracy",
        f"the detector {args.second}",
        len(second.test),
        f"images of {args.second}",
        made,
    )
    plots.save_figure(figure, caption, out / "domain_shift.png")
    rows = [(name, n, *score) for name, curve in curves.items() for n, score in curve.items()]
    table = pd.DataFrame(rows, columns=["method", "images", "accuracy", "low", "high"])
    table.to_csv(out / "domain_shift.csv", index=False)
    print(f"\n{table.round(3).to_string(index=False)}\n\n{caption}\n\nWritten: {out}")


if __name__ == "__main__":
    main()
