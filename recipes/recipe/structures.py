"""Comparisons of strategies that predict the structure of chains."""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

import kft
from kft.evaluation.metrics import interval
from recipe.arguments import above_zero


def structure_arguments(doc):
    """Read the arguments of a recipe on structures.

    Args:
        doc: Docstring of the recipe.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    add, count = parser.add_argument, above_zero(int)
    add("--backbone", default="kft_esm2_tiny", help="name, folder or file of an ESM-2 or ESM-C")
    add("--strategies", nargs="+", default=["head_only", "lora"], choices=kft.strategies.names())
    add("--seeds", type=count, default=3, help="trainings of each strategy")
    add("--epochs", type=count, help="of each training; default: those of the strategy")
    add("--batch-size", type=count, default=8, help="chains of a step")
    add("--chains", type=count, help="most chains of each split, drawn at random; default: all")
    add("--tiny", action="store_true", help="8 chains and one epoch, to see that it runs")
    add("--out", type=Path, default=Path("out"), help="folder for what is written")
    return parser.parse_args()


def compare_on_chains(args, target):
    """Compare strategies with each other and with baselines; the table is printed.

    Args:
        args: Those of `structure_arguments`.
        target: As for `kft.data.load("chains")`.

    Returns:
        `kft.comparison.Comparison`.
    """
    data = kft.data.load("chains", target=target)
    most = 8 if args.tiny else args.chains
    if most:
        parts = {
            name: part.take(np.random.default_rng(0).permutation(len(part))[:most])
            for name, part in data.splits.items()
        }
        data = replace(data, **parts)
    return kft.compare(
        kft.load(args.backbone),
        data,
        args.strategies[:1] if args.tiny else args.strategies,
        seeds=1 if args.tiny else args.seeds,
        epochs=1 if args.tiny else args.epochs,
        batch_size=args.batch_size,
        controls=False,
        out=args.out / target,
    )


def nearest_part(sequence, train):
    """Return the coordinates of the part of a training chain that has the most residues in common.

    Args:
        sequence: String of N residues.
        train: `kft.data.Split` of chains. Parts of N residues are compared without gaps.

    Returns:
        Floats (N, 3, 3), or None if all chains are shorter.
    """
    letters, best, found = np.frombuffer(sequence.encode(), "u1"), -1, None
    for other, coordinates in zip(train.inputs, train.parameters["coordinates"], strict=True):
        if len(other) >= len(letters):
            parts = np.lib.stride_tricks.sliding_window_view(
                np.frombuffer(other.encode(), "u1"), len(letters)
            )
            same = (parts == letters).sum(axis=1)
            if same.max() > best:
                start, best = int(same.argmax()), same.max()
                found = coordinates[start : start + len(letters)]
    return found


def medians(table, scores, resamples=10_000):
    """Summarise the scores of ways to fold chains.

    Args:
        table: A row for each chain and method.
        scores: Names of the columns with scores.
        resamples: Number of resamples of the chains.

    Returns:
        DataFrame with a row for each method: medians over chains with 95% intervals, how many
        chains are mirrored, and the mean number of clashes.
    """
    rows = {}
    for method, of in table.groupby("method", sort=False):
        drawn = np.random.default_rng(0).integers(len(of), size=(resamples, len(of)))
        row = {
            name: str(interval(of[name].median(), np.median(of[name].to_numpy()[drawn], 1), 0.95))
            for name in scores
        }
        rows[method] = row | {"mirrored": of.mirrored.sum(), "clashes": of.clashes.mean()}
    return pd.DataFrame(rows).T
