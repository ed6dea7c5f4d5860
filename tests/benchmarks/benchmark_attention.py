"""Times the ways to compute attention, forward and with its gradient, on each backend.

Command: python tests/benchmarks/benchmark_attention.py [--backends jax torch tensorflow]
[--rounds 5] (`--tiny` is a smoke run; `--core 0` pins the work to that core and counts CPU time).
It prints the table of docs/benchmarks.md, from which `_SHORT` and `_LONG` are in
`kft/backbones/attention.py`.

Method: 20 heads of 16 features, as in esm2_t6_8M_UR50D, compiled as in a training step; medians of
milliseconds. "whole" is the `dot_product_attention` of Keras, which on torch is torch's own.
"proteins" and "heads" are that of kft with one protein, or one head, after the other.
"""

import json
import os
import statistics
from functools import partial

import benchmark_esm2 as base
import numpy as np

CASES = {False: [(8, 58), (8, 192), (8, 256), (4, 384), (2, 1022)], True: [(2, 10)]}
WAYS = {"whole": None, "proteins": 1_000_000, "heads": 1}  # `_LONG` of kft
HEADS, WIDTH = 20, 16


def main():
    options = base.arguments(__doc__, rounds=5).parse_args()
    if options.inside:
        print(json.dumps(measure(options)))
        return
    print(
        "| backend | batch | whole | proteins | heads | with gradient: whole | proteins | heads |"
    )
    print("|" + "---|" * 8)
    for backend in options.backends:
        for batch, length, *milliseconds in base.inside(backend):
            shown = ["" if x is None else f"{x:.1f}" for x in milliseconds]
            print(f"| {backend} | B{batch} L{length} | {' | '.join(shown)} |")


def measure(options):
    import keras
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    rows = []
    for batch, length in CASES[options.tiny]:
        draw = np.random.default_rng(0).standard_normal
        arrays = [draw((batch, length, HEADS, WIDTH)).astype("float32") for _ in range(3)]
        arrays = [keras.ops.convert_to_tensor(x) for x in arrays]
        row = [batch, length]
        for with_gradient in (False, True):
            for way in WAYS:
                pieces = way != "whole"
                if pieces and keras.backend.backend() == "torch":
                    row.append(None)
                    continue
                row.append(milliseconds(way, arrays, with_gradient, options.rounds))
        rows.append(row)
    return rows


def milliseconds(way, arrays, with_gradient, rounds):
    from kft.backbones import attention as module

    module._SHORT, module._LONG = 1, WAYS[way]
    run = (gradient if with_gradient else forward)(way)
    seconds = []
    for _ in range(rounds + 1):
        start = base.now()
        run(*arrays)
        seconds.append(base.now() - start)
    return 1e3 * statistics.median(seconds[1:])


def attend(way, query, key, value):
    from keras import ops

    from kft.backbones.attention import attention

    mask = ops.ones(ops.shape(query)[:2], "bool")
    if way == "whole":
        return ops.dot_product_attention(query, key, value, mask=mask[:, None, None, :])
    return attention(query, key, value, mask)


def forward(way):
    return compiled(partial(attend, way))


def gradient(way):
    """A function that computes the gradient of the sum of squares."""
    import keras
    from keras import ops

    def loss(*inputs):
        return ops.sum(ops.square(attend(way, *inputs)))

    if keras.backend.backend() == "jax":
        import jax

        return compiled(jax.grad(loss, argnums=(0, 1, 2)))
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        def of_tape(*inputs):
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                total = loss(*inputs)
            return tape.gradient(total, inputs)

        return compiled(of_tape)

    def backward(*inputs):
        loss(*(x.clone().requires_grad_() for x in inputs)).backward()

    return backward


def compiled(function):
    """The function, compiled as in `fit`, which waits for its result."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        function = jax.jit(function)
        return lambda *inputs: jax.block_until_ready(function(*inputs))
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        function = tf.function(function, jit_compile=True)
        return lambda *inputs: keras.tree.map_structure(lambda x: x.numpy(), function(*inputs))
    import torch

    return torch.no_grad()(function)


if __name__ == "__main__":
    main()
