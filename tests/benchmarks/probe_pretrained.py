"""Does a pre-trained backbone know what random weights and counts do not? Linear probes tell.

Command: KERAS_BACKEND=torch python tests/benchmarks/probe_pretrained.py --records 1000
The same probe, solved in closed form, on the backbone and on its architecture with random weights
of several seeds, beside the baselines of each data set, all trained on the same records; 95%
intervals over test records and seeds. A probe on given weights has nothing that a seed changes.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))
import recipe
from rich.console import Console

import kft
from kft.comparison.results import Comparison, Row
from kft.comparison.scoring import baseline_rows, scores_of


def few(data, records):
    """Trains on so many records, drawn at random."""
    if not records or records >= len(data.train):
        return data
    order = np.random.default_rng(0).permutation(len(data.train))
    return replace(data, train=data.train.take(order[:records]))


def probed(told, kind, backbones, data, seeds, max_length):
    """The row of one probe, trained on each backbone; a single one stands for all seeds."""
    answers = []
    for seed, backbone in enumerate(backbones):
        print(f"  {data.name}: {told}, seed {seed}", flush=True)
        model = kft.Model(backbone, kft.heads.for_data(data))
        done = kft.fit(model, data, "linear_probe", seed=seed, max_length=max_length, verbose=0)
        answers.append(kft.predict(done.model, data.test.inputs, max_length=max_length))
    answers = answers if len(answers) == seeds else answers * seeds
    last = done.phases[-1]
    return Row(told, kind, scores_of(data, answers), last.trainable, last.parameters,
               done.seconds, predictions=answers)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add, count = parser.add_argument, recipe.above_zero(int)
    add("--backbone", default="kft_esm2_tiny")
    add("--data", nargs="+", default=["amp", "gb1", "secondary_structure"])
    add("--records", type=count, help="train on so many")
    add("--seeds", type=count, default=5, help="of random weights")
    add("--max-length", type=count, default=1022)
    args = parser.parse_args()
    for name in args.data:
        data = few(kft.data.load(name, **({"crop": True} if name == "gb1" else {})), args.records)
        random = (kft.load(args.backbone, weights=False, seed=i) for i in range(args.seeds))
        options = data, args.seeds, args.max_length
        rows = (
            *baseline_rows(data, log=print, max_length=args.max_length),
            probed("linear probe", "strategy", [kft.load(args.backbone)], *options),
            probed("the same, random weights", "control", random, *options),
        )
        result = Comparison(name, len(data.test), rows, tuple(range(args.seeds)), 0.95, {})
        print(f"\n{name}: trained on {len(data.train):,} records")
        Console(width=140).print(result.table(), highlight=False)


if __name__ == "__main__":
    main()
