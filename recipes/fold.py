"""Do the distances between residues, and their torsions, fix the fold of a chain?

Folds real chains from what a perfect network would predict: the bins of their true distances,
smoothed (`kft.structure.smoothed_distogram`), and their true torsions. The chain is found by
gradient descent on the torsions, as in AlphaFold (Senior et al. 2020): once from both, and once
from the distances alone, which begin at random torsions. Beside them, what costs nothing: a helix
and a random coil.

Data: chains (cgdms, MIT; structures of the PDB, CC0), test chains of at most 60 residues without a
break.
Command: KERAS_BACKEND=torch python recipes/fold.py
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

LONGEST = 60
SCORES = {"lDDT": lambda *chains: structure.lddt(*chains).mean(), "TM-score": structure.tm_score,
          "GDT_TS": structure.gdt_ts, "RMSD": structure.rmsd}  # fmt: skip


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, count = parser.add_argument, recipe.above_zero(int)
    add("--chains", type=count, help="number of chains; default: all")
    add("--starts", type=count, default=8, help="starts of the descent from distances alone")
    add("--tiny", action="store_true", help="the two shortest chains, to see that it runs")
    add("--out", type=Path, default=Path("out/fold"), help="folder for what is written")
    return parser.parse_args()


def chosen(args):
    """Return (name, sequence, coordinates) of the chains."""
    test = kft.data.load("chains").test
    rows = zip(test.parameters["name"], test.inputs, test.parameters["coordinates"], strict=True)
    found = []
    for name, sequence, coordinates in rows:
        chain = structure.ProteinChain(name, sequence, coordinates)
        if len(chain) <= LONGEST and not chain.breaks:
            found.append(chain)
    if args.tiny:
        return sorted(found, key=len)[:2]
    return found[: args.chains]


def models(chain, starts, seed=0):
    """Return name -> coordinates (N, 3, 3) of each way to fold a chain."""
    bins, known = structure.distogram(chain.coordinates)
    distances, true = (
        structure.smoothed_distogram(bins, known),
        structure.torsions(chain.coordinates),
    )
    unknown, helix = (
        np.full_like(true, np.nan),
        np.tile(np.deg2rad([-60, -45, 180.0]), (len(true), 1)),
    )
    fold = structure.fold_chain
    return {
        "distances and torsions": fold(chain.sequence, distances, true, starts=1).chain.coordinates,
        "distances alone": fold(chain.sequence, distances, starts=starts).chain.coordinates,
        "helix": structure.rebuild(helix),
        "random coil": fold(chain.sequence, None, unknown, starts=1, seed=seed).chain.coordinates,
    }


def main():
    args = arguments()
    rows = []
    for chain in track(chosen(args), "Folding", disable=None):
        true = chain.coordinates[:, 1]
        for method, coordinates in models(chain, args.starts).items():
            model = coordinates[:, 1]
            scores = {name: score(model, true) for name, score in SCORES.items()}
            mirrored = structure.is_mirrored(model, true)
            row = {"chain": chain.name, "residues": len(chain), "method": method}
            rows.append(row | scores | {"mirrored": mirrored, "clashes": structure.clashes(model)})
    table = pd.DataFrame(rows)
    args.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.out / "scores.csv", index=False, float_format="%.4f")
    print(f"{table.chain.nunique()} chains of at most {LONGEST} residues, medians over chains:")
    columns = [*SCORES, "clashes"]
    medians = table.groupby("method", sort=False)[columns].median()
    medians["mirrored"] = table.groupby("method", sort=False)["mirrored"].sum()
    print(medians.to_string(float_format="{:.3f}".format))
    print(f"Written: {args.out}/scores.csv, a row for each chain and method.")


if __name__ == "__main__":
    main()
