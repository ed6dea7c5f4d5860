"""Trains an ESM-2 on FLIP's secondary structure, from random or pre-trained weights.

Command: KFT_DATA=... KERAS_BACKEND=torch python tests/benchmarks/secondary_structure.py --epochs 1
It prints the scores of docs/benchmarks.md. Schmirler et al. 2024, table S17, reach an accuracy of
0.708 (mean over test sets) with `esm2_t6_8M_UR50D` from random weights in 5 epochs, and 0.753 with
a head on its frozen pre-trained weights.
"""

import argparse
import time
from dataclasses import replace

import numpy as np

import kft

STRATEGIES = ("full", "lora", "head_only", "linear_probe")


def few(data, records):
    """Draw chains to train on, and a tenth as many for validation."""
    rng, kept = np.random.default_rng(0), {}
    for name, count in (("train", records), ("valid", records // 10)):
        kept[name] = data.splits[name].take(rng.permutation(len(data.splits[name]))[:count])
    return replace(data, **kept)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backbone", default="esm2_t6_8M_UR50D")
    parser.add_argument("--pretrained", action="store_true", help="keep its weights")
    parser.add_argument("--strategy", choices=STRATEGIES, default="full")
    parser.add_argument("--cache", help="folder that keeps frozen features for the next seed")
    parser.add_argument("--records", type=int, help="train on so many chains, drawn at random")
    parser.add_argument("--dtype", default="mixed_bfloat16")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=512, help="residues, in training")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    data = kft.data.load("secondary_structure")
    data = few(data, options.records) if options.records else data
    print(data)
    backbone = kft.load(options.backbone, weights=options.pretrained, dtype=options.dtype)
    if not options.pretrained:
        backbone = kft.backbones.randomised(backbone, options.seed)
    model = kft.Model(backbone, kft.heads.for_data(data))
    trained = {"epochs": options.epochs, "learning_rate": options.learning_rate}
    solved = options.strategy == "linear_probe"  # in closed form
    strategy = kft.strategies.get(options.strategy, **({} if solved else trained))
    started = time.perf_counter()
    done = kft.fit(
        model, data, strategy, batch_size=options.batch_size, max_length=options.max_length,
        seed=options.seed, cache=options.cache, verbose=2,
    )  # fmt: skip
    print(f"Training took {(time.perf_counter() - started) / 60:.0f} minutes.")
    for name in data.splits:
        if name not in ("train", "valid"):
            print(f"{name}: {kft.evaluate(done.model, data, name, copies=False)}", flush=True)


if __name__ == "__main__":
    main()
