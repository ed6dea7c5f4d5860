"""Does a model know which two proteins interact, or only which proteins have many partners?

Trains a head on pairs of proteins, on splits in which both, one or none of the proteins of a test
pair were seen (classes C1, C2 and C3 of Park and Marcotte 2012), and compares it with baselines
that know only how the pairs of a protein turned out (degree) or which training pairs are similar.
Score the class that your question is about: for proteins that nobody has studied, C3.

Data: simulated. Each protein carries one of eight motifs of kinds of residues, some two of them;
two proteins interact if they carry the two motifs of one of four pairs. Half of the pairs do. Or
your own table with two columns of sequences and one of labels.
Command: KERAS_BACKEND=torch python recipes/interaction.py
Needs: 1 GB, @@TIME@@ of one core.
Expect: @@EXPECT@@
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import recipe

import kft

GROUPS = {"+": "KR", "-": "DE", "a": "FWY", "h": "ILMV", "p": "NQST", "s": "AGP"}
MOTIFS = (
    "+a+a+a+a",
    "-h-h-h-h",
    "ppaappaa",
    "sshhsshh",
    "+s+s+p+p",
    "-a-a-s-s",
    "hphphphp",
    "a+-a+-a+",
)


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
    add("--seeds", type=count, default=3, help="trainings for each strategy")
    add("--max-length", type=count, help="residues to keep of each protein")
    add("--tiny", action="store_true", help="40 proteins and 200 pairs, to test the recipe")
    add("--out", type=Path, default=Path("out/interaction"), help="folder for results")
    args = parser.parse_args()
    if args.csv and not args.target:
        parser.error("--csv needs --target, the column of the labels")
    if args.tiny:
        args.proteins, args.pairs, args.seeds = 40, 200, 1
    return args


def simulated(proteins, pairs, seed=0):
    """Simulate proteins with planted motifs and pairs of them, half of which interact.

    Args:
        proteins: Number of proteins.
        pairs: Number of pairs.
        seed: Int from which they are drawn.

    Returns:
        Table with the columns `sequence_a`, `sequence_b` and `interacts`.
    """
    rng = np.random.default_rng(seed)
    carried, sequences = [], []

    def drawn_from(motif):
        return "".join(rng.choice(list(GROUPS[group])) for group in motif)

    for _ in range(proteins):
        # One protein in five carries two motifs, and so has more partners.
        motifs = rng.choice(len(MOTIFS), 1 + (rng.random() < 0.2), replace=False)
        letters = "".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), 24))
        at = sorted(rng.choice(24, len(motifs), replace=False))
        pieces = [letters[i:j] for i, j in zip([0, *at], [*at, 24], strict=True)]
        planted = [drawn_from(MOTIFS[m]) for m in motifs]
        ends = "".join(x + y for x, y in zip(planted, pieces[1:], strict=True))
        sequences.append(pieces[0] + ends)
        carried.append(set(motifs.tolist()))
    first, second = np.triu_indices(proteins, 1)
    # Motifs 0 and 1 bind each other, 2 and 3, and so on.
    binds = np.array([
        any(m ^ 1 in carried[j] for m in carried[i]) for i, j in zip(first, second, strict=True)
    ])  # fmt: skip
    drawn = [rng.permutation(np.flatnonzero(binds == which))[: pairs // 2] for which in (0, 1)]
    at = rng.permutation(np.concatenate(drawn))
    columns = {"sequence_a": first[at], "sequence_b": second[at]}
    table = pd.DataFrame({name: [sequences[i] for i in side] for name, side in columns.items()})
    return table.assign(interacts=np.where(binds[at], "yes", "no"))


def main():
    args = arguments()
    table, target = args.csv, args.target
    if table is None:
        table, target = simulated(args.proteins, args.pairs), "interacts"
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
