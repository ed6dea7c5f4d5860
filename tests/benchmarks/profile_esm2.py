"""Shows where the time of a LoRA step and of a forward pass goes, per backend.

Command: python tests/benchmarks/profile_esm2.py [--backends jax torch tensorflow] [--rounds 5]
(`--tiny` is a smoke run; `--core 0` pins the work to that core and counts CPU time). It prints the
table of docs/benchmarks.md.

Method: the shape of esm2_t6_8M_UR50D with random weights. "LoRA" is `train_on_batch` with rank 8
on query and value, "forward" what `kft.embed` runs, `predict_on_batch`. One part after the other is
switched off; given is by how much the median falls. The optimizer is Adam less plain gradient
descent. "products" are those with kernels, computed alone on the same backend; "fixed" is a step
for one protein of two residues: Python, dispatch and the optimizer. What is left over is sums,
transposes and what compiling several parts together costs or saves, so it may be negative. "first"
is the first call less a later one: tracing and compilation.
"""

import json
import os
import statistics
from contextlib import ExitStack
from unittest import mock

import benchmark_esm2 as base
import numpy as np

CASES = {False: [(8, 58), (8, 256), (2, 1022)], True: [(2, 10)]}
PARTS = ("attention", "rotary", "norm", "gelu", "optimizer")


def main():
    options = base.arguments(__doc__, rounds=5).parse_args()
    if options.inside:
        print(json.dumps(measure(options)))
        return
    print(
        "| backend | work | batch | ms | products | attention | rotary | norms | GELU | optimizer "
        "| fixed | left over | first, s |"
    )
    print("|" + "---|" * 13)
    for backend in options.backends:
        for work, batch, whole, products, fixed, first, parts in base.inside(backend):
            left = whole - products - fixed - sum(parts.values()) + parts["optimizer"]
            shares = [f"{100 * x / whole:.0f}%" for x in (products, *parts.values(), fixed, left)]
            print(f"| {backend} | {work} | {batch} | {whole:.0f} | {' | '.join(shares)} | "
                  f"{first:.1f} |")  # fmt: skip


def measure(options):
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    sizes, rows = base.SIZES[options.tiny], []
    for work in ("LoRA", "forward"):
        fixed, _ = timed(sizes, work, 1, 4, None, options.rounds)
        for batch, length in CASES[options.tiny]:
            case = sizes, work, batch, length
            whole, first = timed(*case, None, options.rounds)
            products = matmuls(*sizes[:2], batch * length, work, options.rounds)
            parts = {}
            for part in PARTS:
                if part == "optimizer" and work == "forward":
                    parts[part] = 0.0
                    continue
                parts[part] = whole - timed(*case, part, options.rounds)[0]
            rows.append([work, f"B{batch} L{length}", whole, products, fixed, first, parts])
    return rows


def timed(sizes, work, batch, length, without, rounds):
    """Median milliseconds of a step without a part, and seconds that the first took longer."""
    token_ids = np.random.default_rng(0).integers(4, 24, (batch, length)).astype("int32")
    token_ids[:, 0], token_ids[:, -1] = 0, 2
    classes = np.arange(batch, dtype="int32") % 2
    with switched_off(without):
        model = made(sizes, work, without)
        seconds = []
        for _ in range(rounds + 2):
            start = base.now()
            if work == "forward":
                model.predict_on_batch({"token_ids": token_ids})
            else:
                model.train_on_batch({"token_ids": token_ids}, classes)
            seconds.append(base.now() - start)
    median = statistics.median(seconds[2:])
    return 1e3 * median, seconds[0] - median


def made(sizes, work, without):
    import keras

    import kft
    from kft.backbones.esm2.model import ESM2

    model = kft.Model(ESM2(*sizes), kft.heads.Classification(2))
    if work == "LoRA":
        kft.add_lora(model, 8, 16, targets=["query", "value"])
        rule = keras.optimizers.SGD if without == "optimizer" else keras.optimizers.Adam
        model.compile(rule(1e-4), "sparse_categorical_crossentropy")
    return model


def switched_off(part):
    """A context in which new models lack a part: "attention", "rotary", "norm" or "gelu"."""
    import keras

    from kft.backbones.esm2 import layers

    stack = ExitStack()
    for name, (where, what, instead) in {
        "attention": (layers, "attention", lambda query, key, value, mask: query + key + value),
        "rotary": (layers, "rotate", lambda x, frequencies: x),
        "norm": (keras.layers.LayerNormalization, "call", lambda self, x: x),
        "gelu": (layers.ops, "gelu", lambda x, approximate: x),
    }.items():
        if name == part:
            stack.enter_context(mock.patch.object(where, what, instead))
    return stack


def matmuls(num_blocks, width, tokens, work, rounds):
    """Milliseconds of a step's products with kernels: forward, and the gradients of the inputs."""
    import keras
    from keras import ops

    def products(x, kernels):
        for kernel in kernels:
            x = ops.matmul(x, kernel)
        return x

    kernels = [(width, width)] * 4 + [(width, 4 * width), (4 * width, width)]
    if work == "LoRA":  # back through the same kernels, transposed
        kernels += [(o, i) for i, o in reversed(kernels)]
    draw = np.random.default_rng(0).standard_normal
    kernels = [ops.convert_to_tensor(draw(shape).astype("float32")) for shape in kernels]
    x = ops.convert_to_tensor(draw((tokens, width)).astype("float32"))
    if keras.backend.backend() == "jax":
        import jax

        products = jax.jit(products)
    elif keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        products = tf.function(products, jit_compile=True)
    seconds = []
    for _ in range(rounds + 1):
        start = base.now()
        ops.convert_to_numpy(products(x, kernels))
        seconds.append(base.now() - start)
    return 1e3 * num_blocks * statistics.median(seconds[1:])


if __name__ == "__main__":
    main()
