"""Prints the README's parity table: how far kft's ESM-2 is from its two original implementations.

Command: KERAS_BACKEND=jax python tests/benchmarks/parity_esm2.py (and torch, and tensorflow)

The truth is the reference run in float64; given are the largest absolute errors of float32, ours
and, in brackets, the reference's own, over proteins of 1 to 300 residues in one padded batch with
several <mask> and all 33 tokens, three shapes of model, weights of scale 0.1.
"""

import sys
from pathlib import Path

import keras
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
import references


def main():
    token_ids = references.mixed_batch()
    for reference in (references.hugging_face, references.fair):
        errors = dict.fromkeys(references.PARTS, (0.0, 0.0))
        for shape in references.SHAPES.values():
            model = reference(*shape)
            found = references.ours(references.from_reference(model), {"token_ids": token_ids})
            single = references.outputs(model, token_ids)
            truth = references.outputs(model.double(), token_ids)
            for part, a, b, t in zip(references.PARTS, found, single, truth, strict=True):
                where = references.counted(part, token_ids)
                both = np.abs(a - t)[where].max(), np.abs(b - t)[where].max()
                errors[part] = tuple(np.maximum(errors[part], both))
        name = {"hugging_face": "transformers", "fair": "fair-esm"}[reference.__name__]
        cells = " | ".join(f"{a:.1e} ({b:.1e})" for a, b in errors.values())
        print(f"| {name} | {keras.backend.backend()} | {cells} |")


if __name__ == "__main__":
    main()
