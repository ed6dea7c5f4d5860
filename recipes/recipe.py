"""What all recipes share: arguments, data, backbone and head, and how results are printed."""

import argparse
import os
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from kft import backbones, plots
from kft.backbones.esm2.model import ESM2
from kft.comparison.results import NULL, Comparison, Row
from kft.comparison.study import baseline_rows, constant_seeds, scores_of
from kft.data import load, names, read_csv, read_fasta, read_images
from kft.inference import predict
from kft.models import Model, heads, load_saved
from kft.params import parameters
from kft.training import strategies
from kft.training.fitting import fit
from kft.training.optimizers import muon
from kft.training.pretraining import ADAMW

# What `--backbone untrained` means: a smaller ESM-2 with random weights, for controls in minutes.
# What begins from random weights learns faster and longer than the strategies' own settings say.
UNTRAINED = "untrained"
SIZE = {"num_blocks": 3, "width": 64, "num_heads": 4}
EPOCHS = {"amp": 10, "gb1": 20}
RATE = 1e-3
DRAWN_FROM = 1000  # the seed of these weights: from_scratch draws its own from --seed

OPTIMIZERS = ("adamw", "muon")  # of pre-training
CORPUS = Path(os.environ.get("KFT_DATA", "."), "protein_corpus")


def arguments(doc, **defaults):
    """A parser with what every recipe takes.

    Args:
        doc: the recipe's docstring; its first line is what `--help` begins with.
        **defaults: of arguments, where the recipe's differ.

    Returns:
        argparse.ArgumentParser, to which a recipe adds its own.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    add = parser.add_argument
    add(
        "--data",
        default="amp",
        help=f"{', '.join(names())}; a CSV file of yours, or a folder with one of images a class",
    )
    add(
        "--inputs", default="sequence", help="of a CSV: the column of sequences, or path, of images"
    )
    add("--target", default="y", help="of a CSV: the column to be predicted")
    add("--split", help="random, a column, or cluster, as sequences are if nothing is said")
    add(
        "--backbone",
        default="kft_esm2_tiny",
        help="name, folder or file; or untrained, a small one",
    )
    add("--random", action="store_true", help="that architecture, with random weights")
    add("--dtype", help="mixed_bfloat16 halves the memory")
    add("--seed", type=int, default=0, help="of what is new: head, order of batches, dropout")
    add(
        "--epochs",
        type=above_zero(int),
        help="default: the strategy's own; untrained: 10, gb1 20",
    )
    add(
        "--rate",
        type=above_zero(float),
        help="highest learning rate; default: its own; untrained: 1e-3",
    )
    add("--batch-size", type=above_zero(int), default=32, help="records a step")
    add("--max-length", type=above_zero(int), help="residues to keep of each protein")
    add("--records", type=above_zero(int), help="train on so many, drawn at random")
    add("--tiny", action="store_true", help="a run of seconds, to see that it runs")
    add("--out", type=Path, default=Path("out"), help="folder for what is written")
    parser.set_defaults(**defaults)
    return parser


def image_arguments(doc, **defaults):
    """A parser for recipes on images: EfficientNet-Lite0 and simulated gravitational waves."""
    told = {"data": "gravitational_waves", "backbone": "efficientnet_lite0", "inputs": "path"}
    parser = arguments(doc, **told)
    parser.add_argument("--image-size", type=above_zero(int), help="pixels that it is shown")
    # Those of the simulated images: at 224 it would take ten times as long.
    parser.set_defaults(**{"image_size": 64, **defaults})
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


def share(text):
    """For argparse: a float above 0 and below 1."""
    value = above_zero(float)(text)
    if not value < 1:
        raise ValueError
    return value


def data(args, **options):
    """The data set that the arguments name, printed.

    Args:
        args: the arguments.
        **options: of a data set of images that is made: of "gravitational_waves" how many, for one.
    """
    path = Path(args.data)
    of_images = hasattr(args, "image_size") or args.inputs == "path"
    if path.is_dir() or (of_images and (path.suffix or path.is_file())):
        found = read_images(path, args.inputs, args.target, args.split or "random")
    elif path.suffix or path.is_file():
        found = read_csv(path, args.inputs, args.target, args.split or "cluster")
    else:
        if args.data == "gb1":
            options = {"crop": True}
        elif args.data != "gravitational_waves":
            options = {}
        elif args.tiny:
            options = {**options, "images": 80}
        found = load(args.data, **options)
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


def few_of_each(split, count, seed):
    """At most so many records of each class of a split, drawn at random."""
    rng = np.random.default_rng(seed)
    kinds = [np.flatnonzero(split.targets == kind) for kind in np.unique(split.targets)]
    return split.take(np.concatenate([rng.permutation(at)[:count] for at in kinds]))


def proteins(path):
    """A table with column sequence, and family where it is known, of a .tsv.gz or FASTA file."""
    if path.suffix == ".gz" and ".tsv" in path.suffixes:
        return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    return pd.DataFrame({"sequence": [record.sequence for record in read_fasta(path)]})


def corpus(path, tiny):
    """Proteins to pre-train on, printed how many.

    Args:
        path: a folder of train_*.tsv.gz with columns family and sequence, or a FASTA file.
        tiny: of the first file only, and few.

    Returns:
        Two lists of strings: what is trained on, and one each of 400 other families, to follow the
        training by.

    Raises:
        SystemExit: there is no such folder or file.
    """
    files = sorted(path.glob("train_*.tsv.gz")) if path.is_dir() else [path]
    if not (files and files[0].exists()):
        raise SystemExit(f"There is no corpus in {path}: give --corpus a FASTA file or a folder.")
    table = pd.concat([proteins(file) for file in files[: 1 if tiny else None]])
    if "family" not in table:
        table["family"] = np.arange(len(table))
    sizes = table.family.value_counts(sort=False)
    # Not a large one: a single family holds half of the corpus.
    families = np.random.default_rng(0).permutation(sizes.index[sizes <= 50])
    kept_out = families[: min(400, len(families) // 10)]
    out = table.family.isin(kept_out)
    followed = table[out].drop_duplicates("family").sequence.tolist()
    train = table[~out].sequence.tolist()
    print(f"{path}: {len(train):,} proteins, {sum(map(len, train)):,} residues to train on; "
          f"{len(followed)} others to follow it by, that are left out.")  # fmt: skip
    return (train[:100], followed[:20]) if tiny else (train, followed)


def optimizer(args):
    """What makes the optimizer of a pre-training, for `kft.pretraining.pretrain`."""
    if args.optimizer == "adamw":
        return ADAMW
    half = "bfloat16" if "bfloat16" in (args.dtype or "") else None
    return partial(muon, adam_beta_2=0.98, dtype=half)


def backbone(args):
    """The backbone that the arguments name."""
    if args.backbone == UNTRAINED:
        return backbones.randomised(ESM2(**SIZE, dtype=args.dtype), DRAWN_FROM)
    size = getattr(args, "image_size", None)
    size = 32 if size and args.tiny else size
    path = Path(args.backbone)
    if path.suffix == ".keras" and path.is_file():
        return _saved(path, args, size)
    return backbones.load(args.backbone, not args.random, dtype=args.dtype, image_size=size)


def _saved(path, args, size):
    """The vision backbone that `backbone.save` wrote, as the recipe vision_mae does."""
    try:
        found = load_saved(path)
    except Exception as error:  # Keras has many, by what is wrong with the file
        raise SystemExit(f"--backbone: {path} cannot be read as a Keras model: {error}") from error
    if not hasattr(found, "image_size"):
        kind = type(found).__name__
        raise SystemExit(f"--backbone: {path} holds no vision backbone but a {kind}.")
    if args.dtype:
        raise SystemExit(f"--dtype: {path} keeps the one that it was saved with.")
    found = found.resized(size) if size else found
    return backbones.randomised(found, 0) if args.random else found


def head(found):
    """A new head for a data set."""
    # Of a protein often a few positions decide, and the mean over all would drown them.
    of_proteins = isinstance(found.train.inputs[0], str)
    return heads.for_data(found, pooling="attention" if of_proteins else "mean")


def strategy(args, name, **options):
    """A strategy with what the arguments say of epochs and rate."""
    known = {f.name for f in fields(strategies.get(name))}
    told = {"epochs": args.epochs, "rate": args.rate}
    if args.backbone == UNTRAINED:
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
        `kft.training.fitting.Fit`.
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
              last["parameters"], done.seconds, predictions=[answers],
              constant=constant_seeds(found, [answers]))  # fmt: skip
    rows = [own, *rows]
    about = {"recipe": name, "strategy": repr(done.strategy), "best epoch": done.best_epoch}
    result = Comparison(found.name, len(found.test), tuple(rows), (args.seed,), 0.95, about)
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    console.print(result.table(), highlight=False)
    print(f"{NULL}\n\n{result.recommendation}\n")
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
