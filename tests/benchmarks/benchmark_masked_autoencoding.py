"""Times a training step of an encoder that sees visible patches only beside one that sees all.

Command: python tests/benchmarks/benchmark_masked_autoencoding.py [--backends jax torch]
(`--rounds 9` measures longer, `--tiny` is a smoke run; `--core 0` pins the work to that core and
counts CPU time, for a machine that others use.) It prints the table of
docs/pretraining.md.

A ViT-Ti/16 at 224 pixels: 12 blocks, width 192, 3 heads. A step is forward, backward and SGD, by
`train_on_batch` of a compiled model that takes the mean of squares of the features; both models
share the layers, and take turns on the same images. "autoencoder" is the whole step of masked
autoencoding, decoder (2 blocks, width 128) included. Given are medians, and the median of the
ratios of neighbouring steps.
"""

import json
import os
import statistics

import numpy as np
from benchmark_esm2 import arguments, inside, machine, now

SIZE = {False: (12, 192, 3, 16, 224), True: (2, 16, 2, 8, 64)}  # by --tiny
NAMES = ("full", "visible", "autoencoder")


def main():
    parser = arguments(__doc__, rounds=9)
    parser.add_argument("--batch-size", type=int, default=8)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(measure(options)))
        return
    print(machine())
    print("| backend | all patches, ms | visible, ms | times faster | autoencoder, ms | "
          "times faster |\n|---|---|---|---|---|---|")  # fmt: skip
    for backend in options.backends:
        measured = inside(backend)
        full, visible, whole = (1e3 * statistics.median(measured[name]) for name in NAMES)
        ratios = [
            statistics.median(np.divide(measured["full"], measured[name])) for name in NAMES[1:]
        ]
        print(f"| {backend} | {full:.0f} | {visible:.0f} | **{ratios[0]:.2f}** | {whole:.0f} | "
              f"{ratios[1]:.2f} |", flush=True)  # fmt: skip


def measure(options):
    """Seconds of each step, by what was run."""
    import keras

    from kft.backbones import randomised
    from kft.backbones.vision.models import VisionTransformer
    from kft.training.pretraining import masked_autoencoder, masked_image_batches

    if options.inside == "torch":
        import torch

        torch.set_num_threads(len(os.sched_getaffinity(0)))
    blocks, width, heads, patch, side = SIZE[options.tiny]
    backbone = VisionTransformer("vit", blocks, width, heads, patch_size=patch, image_size=side)
    whole = masked_autoencoder(randomised(backbone, 0))
    rng = np.random.default_rng(0)
    pictures = list(rng.integers(0, 256, (options.batch_size, side, side, 3), "uint8"))
    batches = masked_image_batches(pictures, backbone.encode, options.batch_size, patch_size=patch)
    inputs, targets = batches[0]
    steps = {"full": _step(keras, backbone, {"images": inputs["images"]})}
    seen = {name: inputs[name] for name in ("images", "visible")}
    steps["visible"] = _step(keras, whole.encoder, seen)
    whole.compile(keras.optimizers.SGD(1e-6), "mse")
    steps["autoencoder"] = lambda: whole.train_on_batch(inputs, targets)
    seconds = {name: [] for name in steps}
    for _ in range(options.rounds + 2):  # the first compiles, the second warms up
        for name, step in steps.items():
            start = now()
            float(step())
            seconds[name].append(now() - start)
    return {name: times[2:] for name, times in seconds.items()}


def _step(keras, encoder, inputs):
    mean = keras.layers.GlobalAveragePooling1D()(encoder.output)
    model = keras.Model(encoder.input, mean)
    model.compile(keras.optimizers.SGD(1e-6), "mse")
    targets = np.zeros((len(inputs["images"]), encoder.output.shape[-1]), "float32")
    return lambda: model.train_on_batch(inputs, targets)


if __name__ == "__main__":
    main()
