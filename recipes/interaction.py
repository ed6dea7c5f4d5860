"""Does a model know which two proteins interact, or only which proteins have many partners?

Trains a head on pairs of proteins, on splits in which both, one or none of the proteins of a test
pair were seen (classes C1, C2 and C3 of Park and Marcotte 2012), and compares it with baselines
that know only how the pairs of a protein turned out (degree) or which training pairs are similar.
Score the class that your question is about: for proteins that nobody has studied, C3.

Data: simulated. Each protein carries one of eight motifs of kinds of residues, some two of them;
two proteins interact if they carry the two motifs of one of four pairs. Half of the pairs do. Or
your own table with two columns of sequences and one of labels.
Command: KERAS_BACKEND=torch python recipes/interaction.py
Needs: 1 GB, 8 minutes of one core.
Expect: AUROC of degree, similar pairs and linear probe 0.71, 0.88, 0.81 on C1, 0.59, 0.84, 0.80 on
C2, 0.50, 0.77, 0.56 on C3, each within 0.06 to 0.11 (95%, over test pairs); see docs/pairs.md
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import recipe

import kft


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, count = parser.add_argument, recipe.above_zero(int)
    add("--backbone", default=recipe.SMALL, help="name, folder or file")
    add("--strategies", nargs="+", default=["linear_probe"], metavar="NAME",
        help=f"of {', '.join(kft.strategies.names())}")  # fmt: skip
    add("--splits", nargs="+", default=["C1", "C2", "C3"], metavar="SPLIT",
        help="C1, C2, C3, random, or a column of --csv")  # fmt: skip
    add("--csv", type=Path, help="your own table; needs --target")
    add("--inputs", nargs=2, default=["sequence_a", "sequence_b"], metavar="COLUMN",
        help="the two columns of sequences in --csv")  # fmt: skip
    add("--target", help="column of the labels in --csv")
    add("--proteins", type=count, default=150, help="number of simulated proteins")
    add("--pairs", type=count, default=2000, help="number of simulated pairs")
    add("--seeds", type=count, default=1, help="trainings for each strategy")
    add("--max-length", type=count, help="residues to keep of each protein")
    add("--tiny", action="store_true", help="40 proteins and 200 pairs, to test the recipe")
    add("--out", type=Path, default=Path("out/interaction"), help="folder for results")
    args = parser.parse_args()
    if args.csv and not args.target:
        parser.error("--csv needs --target, the column of the labels")
    if args.tiny:
        args.proteins, args.pairs, args.seeds = 40, 200, 1
    return args


def main():
    args = arguments()
    table, target = args.csv, args.target
    if table is None:
        table, target = recipe.interactome(args.proteins, args.pairs), "interacts"
    backbone = kft.PairBackbone(kft.load(args.backbone))
    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for split in args.splits:
        data = kft.data.read_pairs(table, args.inputs, target, split=split)
        print(f"\n{data}")
        found = kft.compare(
            backbone, data, args.strategies, seeds=args.seeds, controls=False,
            max_length=args.max_length, out=args.out / split, verbose="progress",
        )  # fmt: skip
        print(found)
        classes = kft.data.pair_classes(data.train.inputs, data.test.inputs)
        numbers = dict(zip(*np.unique(classes, return_counts=True), strict=True))
        rows += [
            {"split": split, **{name: numbers.get(name, 0) for name in ("C1", "C2", "C3")},
             "method": row.name, found.metric: str(found.interval(row))}
            for row in found.rows
        ]  # fmt: skip
    summary = pd.DataFrame(rows)
    summary.to_csv(args.out / "interaction.csv", index=False)
    wide = summary.pivot(index="method", columns="split", values=found.metric)
    print(f"\n{found.metric} by split, with 95% intervals:\n{wide.to_string()}")
    print(f"Written: {args.out}/interaction.csv")


if __name__ == "__main__":
    main()
