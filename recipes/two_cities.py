"""Does a model of one city's energy use help in another city, and how should it be adapted?

A dense network is trained on many buildings of a northern city. It is then used as it is in a
southern city, and adapted to a few buildings there: its head only, or all of it. It is compared
with the same network from scratch and with boosted trees on those few buildings alone.

Data: simulated by kft ("two_cities"), Apache-2.0.
Command: KERAS_BACKEND=torch python recipes/two_cities.py
Needs: 1 GB, 2 minutes of a processor.
Expect: docs/preparing.md
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import recipe

import kft
from kft import baselines, preparation
from kft.evaluation import metrics

SEEDS = 3


def few_buildings(data, buildings):
    """Keep the records of the first buildings of the training part, a fifth of them to validate.

    Args:
        data: A data set with groups.
        buildings: Number of buildings.
    """
    names = list(dict.fromkeys(data.train.groups.tolist()))[:buildings]
    valid = names[: max(1, buildings // 5)]
    train = data.train.take(np.flatnonzero(np.isin(data.train.groups, names[len(valid) :])))
    return replace(
        data, train=train, valid=data.train.take(np.flatnonzero(np.isin(data.train.groups, valid)))
    )


def main():
    number = recipe.above_zero(int)
    parser = recipe.arguments(__doc__, data="two_cities", epochs=40)
    parser.add_argument("--source-records", type=number, default=8000, help="of the first city")
    parser.add_argument("--buildings", type=number, default=15, help="of the second city")
    args = parser.parse_args()
    out = args.out / "two_cities"
    out.mkdir(parents=True, exist_ok=True)
    records, epochs, seeds = args.source_records, args.epochs, SEEDS
    if args.tiny:
        records, epochs, seeds = 600, 2, 1
    # Energies differ a hundredfold: the network learns their logarithm, and is scored in kWh.
    logarithm = [preparation.TransformTarget("log")]
    north = kft.prepare(kft.data.load("two_cities", city="north", records=records), steps=logarithm)
    south = kft.data.load("two_cities", city="south", records=600 if args.tiny else 6000)
    south = kft.prepare(few_buildings(south, args.buildings), steps=logarithm)
    options = {"batch_size": args.batch_size, "learning_rate": 1e-3, "verbose": 0}
    measured = south.as_measured(south.test.targets)
    rows, predictions = [], {}

    def score(name, predicted):
        """Add a row with the score of the mean of the predictions over seeds, and its interval."""
        predictions[name] = np.mean(predicted, axis=0).reshape(-1)
        found = metrics.score("regression", measured, predictions[name], groups=south.test.groups)
        rows.append([name, *found["MAE"], *found["Spearman"]])
        print(f"  {name}: MAE {found['MAE']} kWh", flush=True)

    print(f"Training on {len(north.train):,} days of the north")
    backbone = kft.load("dense", weights=False, data=north, seed=args.seed)
    source = kft.Model(backbone, kft.heads.for_data(north))
    kft.fit(source, north, "full", epochs=2 * epochs, **{**options, "batch_size": 256})
    print(f"In the north: MAE {kft.evaluate(source, north)['MAE']} kWh")
    print(f"In the south, with {len(south.train):,} days of {args.buildings} buildings:")
    score("source model as it is", [kft.predict(source, south.test.inputs)])
    weights = source.get_weights()

    def adapted(strategy, seed):
        source.set_weights(weights)
        done = kft.fit(source, south, strategy, epochs=epochs, seed=seed, **options)
        return kft.predict(done.model, south.test.inputs)

    def from_scratch(seed):
        new = kft.load("dense", weights=False, data=south, seed=seed)
        model = kft.Model(new, kft.heads.for_data(south))
        kft.fit(
            model, south, "full", epochs=5 * epochs, seed=seed, **options
        )  # starts from nothing
        return kft.predict(model, south.test.inputs)

    for strategy in ("head_only", "full"):
        score(strategy, [adapted(strategy, args.seed + i) for i in range(seeds)])
    score("from scratch", [from_scratch(args.seed + i) for i in range(seeds)])
    for fit in (baselines.linear, baselines.gradient_boosting):
        fitted = fit(south)
        score(fitted.name, [south.as_measured(fitted.predictions)])
    names = ["MAE in kWh", "low", "high", "Spearman", "Spearman low", "Spearman high"]
    table = pd.DataFrame(rows, columns=["method", *names])
    table.to_csv(out / "two_cities.csv", index=False)
    print(f"\n{table.round(3).to_string(index=False)}\n\nWritten: {out}")


if __name__ == "__main__":
    main()
