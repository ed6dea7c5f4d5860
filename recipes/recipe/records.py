"""Data sets of recipes."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from kft.data import load, names
from kft.finetuning import Settings, read_data


def data(args, **options):
    """Load the data set that the arguments name, and print it.

    Args:
        args: Arguments of the recipe.
        **options: Options of a simulated data set: for "gravitational_waves" for example `images`.

    Returns:
        `kft.data.Dataset`.
    """
    if args.data not in names():
        inputs = None if Path(args.data).is_dir() else args.inputs  # a folder has no columns
        settings = Settings(args.data, target=args.target, inputs=inputs, split=args.split)
        dataset, _ = read_data(settings)  # as `kft finetune` reads it
    else:
        if args.data == "gb1":
            options = {"crop": True}
        elif args.data != "gravitational_waves":
            options = {}
        elif args.tiny:
            options = {**options, "images": 80}
        dataset = load(args.data, **options)
    print(f"{dataset}\n")
    if args.tiny:
        return replace(dataset, **{name: _some(dataset, name, 64) for name in dataset.splits})
    if args.records:
        return replace(dataset, train=_some(dataset, "train", args.records))
    return dataset


def _some(dataset, name, count):
    split = dataset.splits[name]
    order = np.random.default_rng(0).permutation(len(split))
    return split.take(order[:count])


def few_of_each(split, count, seed):
    """Draw records of each class of a split.

    Args:
        split: `kft.data.Split`.
        count: Most records per class.
        seed: Int from which they are drawn.

    Returns:
        `kft.data.Split`.
    """
    rng = np.random.default_rng(seed)
    kinds = [np.flatnonzero(split.targets == kind) for kind in np.unique(split.targets)]
    return split.take(np.concatenate([rng.permutation(at)[:count] for at in kinds]))
