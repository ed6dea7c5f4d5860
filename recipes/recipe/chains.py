"""The picture of one protein chain in the recipes on `chains`."""

import numpy as np

from kft.plots import plot_secondary_structure, save_figure


def typical_chain(result, data, method):
    """Return the number of a test chain on which a method is as good as on average."""
    (row,) = [row for row in result.rows if row.name == method]
    best, chosen = np.inf, 0
    for i, states in enumerate(data.test.targets):
        known = data.test.masks[i]
        right = np.mean((row.predictions[0][i].argmax(axis=1) == states)[known])
        distance = abs(right - result.score(row).seeds[0])
        if len(np.unique(states[known])) == len(data.classes) and distance < best:
            best, chosen = distance, i
    return chosen


def draw_chain(result, data, methods, out):
    """Draw one chain by its structure and by what is predicted; return the caption and the file."""
    i, test = typical_chain(result, data, methods[0]), data.test
    predictions = {row.name: row.predictions[0][i] for row in result.rows if row.name in methods}
    figure, caption = plot_secondary_structure(
        test.inputs[i],
        test.targets[i],
        {name: predictions[name] for name in methods},
        data.classes,
        test.masks[i],
        name=f"PDB {test.parameters['name'][i].replace('_', ', chain ')} (test split)",
        how=f"{methods[0]} is as accurate on it as on all test chains.",
    )
    return caption, save_figure(figure, caption, out / "protein.png")
