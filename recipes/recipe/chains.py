"""The picture of one protein chain in the recipes on `chains`."""

import numpy as np

from kft.plots import plot_secondary_structure, save_figure

SHORTEST = 40  # residues of the chain that is drawn: the accuracy on fewer says little


def typical_chain(result, data, methods):
    """Choose the test chain on which methods are most nearly as accurate as on all of them.

    Args:
        result: `kft.Comparison`.
        data: Its `kft.data.Dataset`.
        methods: Names of rows of the comparison.

    Returns:
        Number of a chain with all three states and at least SHORTEST residues.
    """
    rows = [row for row in result.rows if row.name in methods]
    best, chosen = np.inf, 0
    for i, states in enumerate(data.test.targets):
        known = data.test.masks[i]
        distance = 0.0
        for row in rows:
            right = (row.predictions[0][i].argmax(axis=1) == states)[known].mean()
            distance += abs(right - result.score(row).seeds[0])
        varied = known.sum() >= SHORTEST and len(np.unique(states[known])) == len(data.classes)
        if varied and distance < best:
            best, chosen = distance, i
    return chosen


def draw_chain(result, data, methods, out):
    """Draw a typical chain by its structure and by what is predicted, and write `protein.png`.

    Args:
        result, data, methods: As for `typical_chain`; the methods are drawn in this order.
        out: Folder to write to.

    Returns:
        The caption, and the path of the file.
    """
    i, test = typical_chain(result, data, methods), data.test
    predictions = {row.name: row.predictions[0][i] for row in result.rows if row.name in methods}
    figure, caption = plot_secondary_structure(
        test.inputs[i],
        test.targets[i],
        {name: predictions[name] for name in methods},
        data.classes,
        test.masks[i],
        name=f"PDB {test.parameters['name'][i].replace('_', ', chain ')} (test split)",
        how="Of all test chains, the accuracies of these methods on it are nearest to their means.",
    )
    return caption, save_figure(figure, caption, out / "protein.png")
