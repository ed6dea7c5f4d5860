"""Results of a recipe: scores next to those of baselines, printed and written to files."""

from rich.console import Console

from kft import plots
from kft.comparison.results import NULL, Comparison, Row
from kft.comparison.scoring import baseline_rows, constant_seeds, scores_of
from kft.inference import predict


def report(done, dataset, args, name):
    """Compare a trained model with baselines; print and write the results.

    Args:
        done: Result of `run`.
        dataset: `kft.data.Dataset`.
        args: Arguments of the recipe.
        name: Name of the recipe.
    """
    print("\nCompared with baselines, on the test split:")
    rows = baseline_rows(dataset, log=lambda line: print(f"  {line}"))
    predictions = predict(done.model, dataset.test.inputs, args.batch_size, args.max_length)
    last = done.phases[-1]
    row = Row(
        name,
        "strategy",
        scores_of(dataset, [predictions]),
        last.trainable,
        last.parameters,
        done.seconds,
        predictions=[predictions],
        constant_seeds=constant_seeds(dataset, [predictions]),
    )
    rows = [row, *rows]
    settings = {"recipe": name, "strategy": repr(done.strategy), "best epoch": done.best_epoch}
    result = Comparison(dataset.name, len(dataset.test), tuple(rows), (args.seed,), 0.95, settings)
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    console.print(result.table(), highlight=False)
    print(f"{NULL}\n\n{result.recommendation}\n")
    written = result.save(args.out / name)
    figure = _figure(dataset, {row.name: row.predictions[0] for row in rows if row.scores})
    if figure is not None:
        print(f"{figure[1]}\n")
        plots.save_figure(*figure, args.out / name / f"{dataset.name}_predictions.png")
    model = args.out / name / f"{dataset.name}.keras"
    done.model.save(model)
    print(f"Written to {written[0].parent}: figures with captions, a table and a JSON file.")
    print(f"The model: {model}; kft predict {model} NEW.csv --out OUT.csv uses it.")


def _figure(dataset, predictions):
    """Draw predictions and targets, if there is a figure for the task; else None."""
    options = {"data": dataset.name, "groups": dataset.test.groups}
    if dataset.task == "regression":
        return plots.plot_regression(dataset.test.targets, predictions, **options)
    if dataset.task == "classification" and len(dataset.classes) == 2:
        return plots.plot_classification(
            dataset.test.targets, predictions, dataset.classes, **options
        )
    return None
