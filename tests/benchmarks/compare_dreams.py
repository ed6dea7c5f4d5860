"""Do JAX, torch and TensorFlow dream the same of a photograph, and would they in float32?

Command: python tests/benchmarks/compare_dreams.py --core 0
Ten steps at one size of the middle of china.jpg by EfficientNet-Lite0 at 224 pixels, from one seed,
with the gradient in float64 as `kft.dreaming` computes it, and in float32. `--core` pins the work,
whose CPU time is told. `--tiny` is a smoke run.
"""

import json
import tempfile
import time
from itertools import combinations
from pathlib import Path

import numpy as np
from benchmark_esm2 import arguments, inside, machine

STAGES = {False: ("block_3", "block_10"), True: ("block_1",)}  # by --tiny
PRECISIONS = ("float64", "float32")


def main():
    parser = arguments(__doc__, rounds=10)
    parser.add_argument("--out", help="where the images are written; default: nowhere that stays")
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(measure(options)))
        return
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        folder = options.out or folder
        seconds = {name: inside(name, "--out", folder) for name in options.backends}
        print("\n| stage | gradient in | seconds of a tile | largest, mean difference of a pixel |"
              "\n|---|---|---|---|")  # fmt: skip
        for stage in STAGES[options.tiny]:
            for precision in PRECISIONS:
                name = f"{stage}_{precision}"
                images = {b: np.load(f"{folder}/{b}_{name}.npy") for b in options.backends}
                times = ", ".join(f"{b} {found[name]:.2f}" for b, found in seconds.items())
                differences = "; ".join(
                    f"{a}, {b}: {np.abs(images[a] - images[b]).max():.1e}, "
                    f"{np.abs(images[a] - images[b]).mean():.1e}"
                    for a, b in combinations(images, 2)
                )
                print(f"| {stage} | {precision} | {times} | {differences} |")


def measure(options):
    from sklearn.datasets import load_sample_image

    import kft
    from kft.interpretation import activations, dreaming

    size = 64 if options.tiny else 224
    backbone = kft.load("efficientnet_lite0", image_size=size)
    image = load_sample_image("china.jpg")[100 : 100 + size, 200 : 200 + size]
    seconds = {}
    for precision in PRECISIONS:
        activations._precision = lambda precision=precision: precision
        for stage in STAGES[options.tiny]:
            name = f"{stage}_{precision}"
            steps = {"steps": 1 if options.tiny else options.rounds, "octaves": 1}
            found = dreaming.dream(backbone, image, stage, **steps, progress=False)
            np.save(Path(options.out, f"{options.inside}_{name}.npy"), found)
            activation, tile = activations.Activation(backbone, stage, True), image / 255
            weights = activation.weights()
            activation(tile, weights)  # compiles
            start = time.process_time()
            for _ in range(3):
                activation(tile, weights)
            seconds[name] = (time.process_time() - start) / 3
    return seconds


if __name__ == "__main__":
    main()
