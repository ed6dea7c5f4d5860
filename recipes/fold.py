"""Do the distances between residues, and their torsions, fix the fold of a chain?

Folds real chains from what a perfect network would predict: the bins of their true distances,
smoothed (`kft.structure.smoothed_distogram`), and their true torsions. The chain is found by
gradient descent on the torsions, as in AlphaFold (Senior et al. 2020): once from both, and once
from the distances alone, which begin at random torsions. With --models it folds what your networks
predict instead. Beside them, what costs nothing: a helix, a random coil, and the part of a training
chain that has the most residues in common.

Data: chains (cgdms, MIT; structures of the PDB, CC0), test chains of at most 60 residues without a
break.
Command: KERAS_BACKEND=torch python recipes/fold.py [--models distances angles]
Needs: the packages cgdms and biotite, see their errors; 1 GB, 5 s a chain on one core.
Expect: see docs/structures.md
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import recipe
from rich.progress import track

import kft
from kft import structure
from kft.finetuning import trained_model

LONGEST = 60
SCORES = {"lDDT": lambda *chains: structure.lddt(*chains).mean(), "TM-score": structure.tm_score,
          "GDT_TS": structure.gdt_ts, "RMSD": structure.rmsd}  # fmt: skip


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, count = parser.add_argument, recipe.above_zero(int)
    add("--chains", type=count, help="number of chains; default: all")
    add("--starts", type=count, default=8, help="starts of the descent from distances alone")
    add(
        "--models",
        nargs="+",
        default=[],
        metavar="RUN",
        help="runs of `kft finetune chains --task distogram` and `--task torsions`, whose "
        "predictions are folded in place of the truth",
    )
    add("--tiny", action="store_true", help="the two shortest chains, to see that it runs")
    add("--out", type=Path, default=Path("out/fold"), help="folder for what is written")
    return parser.parse_args()


def chosen(test, args):
    """Return the chains to fold."""
    rows = zip(test.parameters["name"], test.inputs, test.parameters["coordinates"], strict=True)
    found = []
    for name, sequence, coordinates in rows:
        chain = structure.ProteinChain(name, sequence, coordinates)
        if len(chain) <= LONGEST and not chain.breaks:
            found.append(chain)
    if args.tiny:
        return sorted(found, key=len)[:2]
    return found[: args.chains]


def folded(chain, args, train, loaded):
    """Yield (name, coordinates (N, 3, 3)) of each way to fold a chain."""
    bins, known = structure.distogram(chain.coordinates)
    distances = structure.smoothed_distogram(bins, known)
    true = structure.torsions(chain.coordinates)
    helix = np.tile(np.deg2rad([-60, -45, 180.0]), (len(true), 1))
    fold, unknown = structure.fold_chain, np.full_like(true, np.nan)
    if loaded:
        of_both = kft.fold(loaded, chain.sequence, args.starts)
        yield "predicted by the models", of_both.chain.coordinates
    else:
        both = fold(chain.sequence, distances, true, starts=1)
        yield "distances and torsions", both.chain.coordinates
        alone = fold(chain.sequence, distances, starts=args.starts)
        yield "distances alone", alone.chain.coordinates
    yield "helix", structure.rebuild(helix)
    yield "random coil", fold(chain.sequence, None, unknown, starts=1).chain.coordinates
    yield "nearest training chain", recipe.nearest_part(chain.sequence, train)


def main():
    args = arguments()
    data = kft.data.load("chains")
    loaded = [trained_model(path) for path in args.models]
    rows = []
    args.out.mkdir(parents=True, exist_ok=True)
    for chain in track(chosen(data.test, args), "Folding", disable=None):
        true = chain.coordinates[:, 1]
        for method, coordinates in folded(chain, args, data.train, loaded):
            model = coordinates[:, 1]
            scores = {name: score(model, true) for name, score in SCORES.items()}
            mirrored = structure.is_mirrored(model, true)
            row = {"chain": chain.name, "residues": len(chain), "method": method}
            rows.append(row | scores | {"mirrored": mirrored, "clashes": structure.clashes(model)})
        table = pd.DataFrame(rows)  # after each chain, for those who stop it
        table.to_csv(args.out / "scores.csv", index=False, float_format="%.4f")
    print(
        f"{table.chain.nunique()} chains of at most {LONGEST} residues: medians with 95% intervals "
        f"over chains; how many are mirrored, and the mean number of clashes."
    )
    print(recipe.medians(table, list(SCORES)).to_string())
    print(f"Written: {args.out}/scores.csv, a row for each chain and method.")


if __name__ == "__main__":
    main()
