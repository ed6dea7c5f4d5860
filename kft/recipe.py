"""What all recipes share: arguments, data, backbone and head, and how results are printed."""

import argparse
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from kft import backbones, heads, plots, strategies
from kft.backbones.esm2 import ESM2
from kft.comparison import baseline_rows, scores_of
from kft.data import load, names, read_csv
from kft.fitting import fit
from kft.model import Model, predict
from kft.params import parameters
from kft.results import NULL, Comparison, Row

# The small ESM-2 that recipes train where no backbone is named: random weights, minutes on a CPU.
# What begins from random weights learns faster and longer than the strategies' own settings say.
SIZE = {"num_blocks": 3, "width": 64, "num_heads": 4}
EPOCHS = {"amp": 10, "gb1": 20}
RATE = 1e-3
DRAWN_FROM = 1000  # the seed of these weights: from_scratch draws its own from --seed


def arguments(doc):
    """A parser with what every recipe takes.

    Args:
        doc: the recipe's docstring; its first line is what `--help` begins with.

    Returns:
        argparse.ArgumentParser, to which a recipe adds its own.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    add = parser.add_argument
    add("--data", default="amp", help=f"{', '.join(names())}, or a CSV file of yours")
    add("--inputs", default="sequence", help="of a CSV: the column of sequences")
    add("--target", default="y", help="of a CSV: the column to be predicted")
    add("--split", default="cluster", help="of a CSV: random, cluster, or a column")
    add("--backbone", help="name, folder or file; default: a small ESM-2 with random weights")
    add("--random", action="store_true", help="that architecture, with random weights")
    add("--dtype", help="mixed_bfloat16 halves the memory")
    add("--seed", type=int, default=0, help="of what is new: head, order of batches, dropout")
    add(
        "--epochs",
        type=above_zero(int),
        help="default: the strategy's own; small model: 10, gb1 20",
    )
    add("--rate", type=above_zero(float), help="highest learning rate; default: its own, or 1e-3")
    add("--batch-size", type=above_zero(int), default=32, help="records a step")
    add("--max-length", type=above_zero(int), help="residues to keep of each protein")
    add("--records", type=above_zero(int), help="train on so many, drawn at random")
    add("--tiny", action="store_true", help="a run of seconds, to see that it runs")
    add("--out", type=Path, default=Path("out"), help="folder for what is written")
    return parser


def above_zero(kind):
    """For argparse: an int or float that must be above 0."""

    def read(text):
        value = kind(text)
        if not value > 0:
            raise ValueError
        return value

    read.__name__ = f"{kind.__name__} above 0"
    return read


def data(args):
    """The data set that the arguments name, printed."""
    path = Path(args.data)
    if path.suffix or path.is_file():
        found = read_csv(path, args.inputs, args.target, args.split)
    else:
        found = load(args.data, **({"crop": True} if args.data == "gb1" else {}))
    print(f"{found}\n")
    if args.tiny:
        return replace(found, **{name: _some(found, name, 64) for name in found.splits})
    if args.records:
        return replace(found, train=_some(found, "train", args.records))
    return found


def _some(found, name, count):
    split = found.splits[name]
    order = np.random.default_rng(0).permutation(len(split))
    return split.take(order[:count])


def backbone(args):
    """The backbone that the arguments name."""
    if args.backbone is None:
        return backbones.randomised(ESM2(**SIZE, dtype=args.dtype), DRAWN_FROM)
    return backbones.load(args.backbone, weights=not args.random, dtype=args.dtype)


def head(found):
    """A new head for a data set."""
    # Often a few positions decide, and the mean over all would drown them.
    return heads.for_data(found, pooling="attention")


def strategy(args, name, **options):
    """A strategy with what the arguments say of epochs and rate."""
    known = {f.name for f in fields(strategies.get(name))}
    told = {"epochs": args.epochs, "rate": args.rate}
    if args.backbone is None:
        told["epochs"] = args.epochs or EPOCHS.get(args.data)
        told["rate"] = args.rate or RATE
    if args.tiny:
        told["epochs"] = 1
    told = {key: value for key, value in told.items() if key in known and value is not None}
    return strategies.get(name, **told, **options)


def run(found, args, chosen):
    """Trains backbone and head by a strategy; prints first what learns.

    Args:
        found: the data set.
        args: the arguments.
        chosen: the strategy.

    Returns:
        `kft.fitting.Fit`.
    """
    model = Model(backbone(args), head(found))
    if hasattr(chosen, "seed"):  # it marks the model here already
        chosen = replace(chosen, seed=args.seed)
    print(parameters(chosen(model)[0].model))
    print()
    return fit(model, found, chosen, batch_size=args.batch_size, max_length=args.max_length,
               seed=args.seed, verbose=2)  # fmt: skip


def report(done, found, args, name):
    """Sets a trained model beside baselines; prints and writes what came out.

    Args:
        done: of `run`.
        found: the data set.
        args: the arguments.
        name: of the strategy.
    """
    from rich.console import Console

    print("\nBeside baselines, on the test split:")
    rows = baseline_rows(found, say=lambda line: print(f"  {line}"))
    answers = predict(done.model, found.test.inputs, args.batch_size, args.max_length)
    last = done.phases[-1]
    own = Row(name, "strategy", scores_of(found, [answers]), last["trainable"],
              last["parameters"], done.seconds, predictions=[answers])  # fmt: skip
    rows = [own, *rows]
    about = {"recipe": name, "strategy": repr(done.strategy), "best epoch": done.best_epoch}
    result = Comparison(found.name, len(found.test), tuple(rows), (args.seed,), 0.95, about)
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    console.print(result.table(), highlight=False)
    print(f"{NULL}\n")
    written = result.save(args.out / name)
    figure = _figure(found, {row.name: row.predictions[0] for row in rows if row.scores})
    if figure is not None:
        print(f"{figure[1]}\n")
        plots.save_figure(*figure, args.out / name / f"{found.name}_predictions.png")
    print(f"Written: {written[0].parent}, figures with captions, table and record.")


def _figure(found, answers):
    """Predictions beside targets, where there is a figure for the task."""
    options = {"data": found.name, "groups": found.test.groups}
    if found.task == "regression":
        return plots.plot_regression(found.test.targets, answers, **options)
    if found.task == "classification" and len(found.classes) == 2:
        return plots.plot_classification(found.test.targets, answers, found.classes, **options)
    return None
