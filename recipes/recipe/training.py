"""Backbone, head and strategy from the arguments, and the training."""

from dataclasses import fields, replace
from pathlib import Path

from kft import backbones
from kft.backbones.esm2.model import ESM2
from kft.comparison.runs import new_model
from kft.finetuning import new_head as head
from kft.models import Model, load_model
from kft.params import parameters
from kft.training import strategies
from kft.training.fitting import fit
from recipe.defaults import default_backbone

# `--backbone untrained`: a smaller ESM-2 with random weights, for controls in minutes. Random
# weights need more epochs and a higher learning rate than the strategies have by default.
UNTRAINED = "untrained"
SIZE = {"num_blocks": 3, "width": 64, "num_heads": 4}
EPOCHS = {"amp": 10, "gb1": 20}
LEARNING_RATE = 1e-3
DRAWN_FROM = 1000  # the seed of these weights: from_scratch draws its own from --seed


def backbone(args):
    """Load the backbone that the arguments name.

    Args:
        args: Arguments of the recipe. If they name none, the default is set and printed.

    Returns:
        A kft backbone.
    """
    args.backbone = args.backbone or default_backbone(args.data)
    if args.backbone == UNTRAINED:
        return backbones.randomised(ESM2(**SIZE, dtype=args.dtype), DRAWN_FROM)
    size = getattr(args, "image_size", None)
    size = 32 if size and args.tiny else size
    path = Path(args.backbone)
    if path.suffix == ".keras" and path.is_file():
        return _saved(path, args, size)
    return backbones.load(args.backbone, not args.random, dtype=args.dtype, image_size=size)


def _saved(path, args, size):
    """Load a vision backbone that `backbone.save` wrote, as in the recipe vision_mae."""
    try:
        model = load_model(path)
    except Exception as error:  # Keras raises many types, depending on the fault of the file
        raise SystemExit(f"--backbone: {path} cannot be read as a Keras model: {error}") from error
    if not hasattr(model, "image_size"):
        kind = type(model).__name__
        raise SystemExit(f"--backbone: {path} must hold a vision backbone, received a {kind}.")
    if args.dtype:
        raise SystemExit(f"--dtype: {path} keeps the dtype that it was saved with.")
    model = model.resized(size) if size else model
    return backbones.randomised(model, 0) if args.random else model


def strategy(args, name, **options):
    """Make a strategy, with the epochs and the learning rate of the arguments.

    Args:
        args: Arguments of the recipe.
        name: Name of the strategy.
        **options: Further options of the strategy.

    Returns:
        `kft.strategies.Strategy`.
    """
    known = {f.name for f in fields(strategies.get(name))}
    given = {"epochs": args.epochs, "learning_rate": args.learning_rate}
    if args.backbone == UNTRAINED:
        given["epochs"] = args.epochs or EPOCHS.get(args.data)
        given["learning_rate"] = args.learning_rate or LEARNING_RATE
    if args.tiny:
        given["epochs"] = 1
    given = {key: value for key, value in given.items() if key in known and value is not None}
    return strategies.get(name, **given, **options)


def run(dataset, args, chosen):
    """Print the table of parameters, and train backbone and head by a strategy.

    Args:
        dataset: `kft.data.Dataset`.
        args: Arguments of the recipe.
        chosen: The strategy.

    Returns:
        `kft.training.fitting.FitResult`.
    """
    if hasattr(chosen, "seed"):
        chosen = replace(chosen, seed=args.seed)
    loaded = backbone(args)
    print(f"{_table(loaded, dataset, chosen)}\n")
    options = {"batch_size": args.batch_size, "max_length": args.max_length}
    return fit(Model(loaded, head(dataset)), dataset, chosen, seed=args.seed, verbose=2, **options)


def _table(loaded, dataset, chosen):
    """The parameters of the first phase, from a copy, so that the model is not changed."""
    copy = chosen.prepare(new_model(loaded, head(dataset)))
    chosen.phases(copy)[0].mark(copy)
    return parameters(copy)
