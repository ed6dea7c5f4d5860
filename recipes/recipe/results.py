"""Results of a recipe: scores beside baselines, printed and written."""

from rich.console import Console

from kft import plots
from kft.comparison.results import NULL, Comparison, Row
from kft.comparison.scoring import baseline_rows, constant_seeds, scores_of
from kft.inference import predict


def report(done, found, args, name):
    """Compare a trained model with baselines; print and write the results.

    Args:
        done: Result of `run`.
        found: `kft.data.Dataset`.
        args: Arguments of the recipe.
        name: Name of the recipe.
    """
    print("\nBeside baselines, on the test split:")
    rows = baseline_rows(found, say=lambda line: print(f"  {line}"))
    predictions = predict(done.model, found.test.inputs, args.batch_size, args.max_length)
    last = done.phases[-1]
    own = Row(
        name,
        "strategy",
        scores_of(found, [predictions]),
        last.trainable,
        last.parameters,
        done.seconds,
        predictions=[predictions],
        constant=constant_seeds(found, [predictions]),
    )
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


def _figure(found, predictions):
    """Predictions beside targets, where there is a figure for the task."""
    options = {"data": found.name, "groups": found.test.groups}
    if found.task == "regression":
        return plots.plot_regression(found.test.targets, predictions, **options)
    if found.task == "classification" and len(found.classes) == 2:
        return plots.plot_classification(found.test.targets, predictions, found.classes, **options)
    return None
