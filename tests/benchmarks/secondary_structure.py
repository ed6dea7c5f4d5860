"""Trains an ESM-2 of published size from random weights on FLIP's secondary structure.

Command: KFT_DATA=... KERAS_BACKEND=torch python tests/benchmarks/secondary_structure.py --epochs 1
It prints the scores of docs/benchmarks.md. Schmirler et al. 2024, table S17, reach an accuracy of
0.708 (mean over test sets) with `esm2_t6_8M_UR50D` from random weights in 5 epochs.
"""

import argparse
import time

import kft


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backbone", default="esm2_t6_8M_UR50D")
    parser.add_argument("--dtype", default="mixed_bfloat16")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=512, help="residues, in training")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    data = kft.data.load("secondary_structure")
    print(data)
    backbone = kft.load(options.backbone, weights=False, dtype=options.dtype)
    model = kft.Model(kft.backbones.randomised(backbone, options.seed), kft.heads.for_data(data))
    strategy = kft.strategies.get(
        "full", epochs=options.epochs, learning_rate=options.learning_rate
    )
    started = time.perf_counter()
    kft.fit(
        model, data, strategy, batch_size=options.batch_size, max_length=options.max_length,
        seed=options.seed, verbose=2,
    )  # fmt: skip
    print(f"{options.epochs} epochs took {(time.perf_counter() - started) / 60:.0f} minutes.")
    for name in data.splits:
        if name not in ("train", "valid"):
            print(f"{name}: {kft.evaluate(model, data, name)}", flush=True)


if __name__ == "__main__":
    main()
