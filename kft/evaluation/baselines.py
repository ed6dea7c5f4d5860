"""Baselines: what a linear model on plain counts reaches, in seconds, on the same splits.

A fine-tuned model has to beat these to be worth its cost, so they are made as strong as the targets
outside test allow: the strength of the L2 penalty is chosen on `data.valid` (by five-fold
cross-validation on `data.train` if there is none), then the model is fitted on both. The test
split is used once, to predict. All models are scikit-learn's; they are the baselines of the FLIP
benchmark (Dallago et al. 2021) and older: amino-acid composition, k-mers, one-hot, and for a target
per residue the window around it; for images the nearest neighbours; for rows of a table a linear
model, a random forest and boosted trees. Only residues that the splits' `masks` mark are used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.multioutput import MultiOutputRegressor
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from kft.arguments import check_integer
from kft.data.images.pixels import find_range, read_pixels, resized_pixels
from kft.data.inputs import kind_of
from kft.data.task import Task
from kft.evaluation.each_label import EachLabel
from kft.evaluation.fitted import (
    AMINO_ACIDS,
    RECORD_TASKS,
    Baseline,
    Composition,
    all_but_test,
    checked_task,
    fit_linear,
    folds_of,
    marked_residues,
    outside_test,
    predicted,
    test_of,
)
from kft.evaluation.pair_baselines import degree, pair_composition, similar_pairs
from kft.evaluation.table_models import Columns, boosting, forest

if TYPE_CHECKING:
    from kft.data import Dataset

RESIDUE_TASKS = tuple(task for task in Task if task.level == "residue")
PUBLISHED = " prediction"  # last word of the fields of `parameters` with one of another program


def constant(data: Dataset) -> Baseline:
    """Predict the same for every record or residue: the mean target, or each class's frequency.

    Args:
        data: A data set.

    Returns:
        Baseline: its Spearman correlation is undefined and its AUROC is 0.5.

    Raises:
        ValueError: There is no test split, or the masks mark no residue.

    Example:
        `evaluation.score(data.task, data.test.targets, constant(data).predictions)`
    """
    start = time.perf_counter()
    task = checked_task(data, RECORD_TASKS + RESIDUE_TASKS)
    targets = all_but_test(data)[1]
    if task.target == "class":
        model: Any = DummyClassifier(strategy="prior")
    elif task.target == "labels":
        model = EachLabel(lambda: DummyClassifier(strategy="prior"))
    else:
        model = DummyRegressor(strategy="mean")
    model.fit(np.zeros((len(targets), 1)), targets)
    inputs = test_of(data).inputs
    number = sum(len(chain) for chain in inputs) if task.per_residue else len(inputs)
    predictions: Any = predicted(data, model, np.zeros((number, 1)))
    if task.per_residue:
        predictions = _by_chain(predictions, test_of(data).inputs)
    parameters = predictions.shape[1] if task.target == "labels" else 1
    if task.target == "class":
        parameters = len(model.classes_)
    name = {"class": "majority class", "labels": "label frequencies", "number": "mean"}[task.target]
    return Baseline(name, predictions, time.perf_counter() - start, parameters)


def composition(data: Dataset) -> Baseline:
    """Fit a linear model on the fraction of each of the 20 amino acids.

    Args:
        data: A data set of protein sequences with targets per record.

    Returns:
        Baseline: of logistic regression (one per label) or ridge regression.

    Raises:
        ValueError: Targets are given per residue, or there is no test split.

    Example:
        `composition(kft.data.load("amp")).predictions[:, 1]`
    """
    # Fractions differ in scale (few Trp, many Leu), and one penalty should weigh them alike.
    return fit_linear("composition", [Composition(), StandardScaler()], data)


def kmers(data: Dataset, k: int = 3) -> Baseline:
    """Fit a linear model on how often each word of k residues occurs.

    Args:
        data: A data set of protein sequences with targets per record.
        k: Length of the words; words that occur only in test are ignored.

    Returns:
        Baseline: of logistic regression (one per label) or ridge regression.

    Raises:
        ValueError: `k` is below 1 or longer than every training sequence, targets are given per
            residue, or there is no test split.

    Example:
        `kmers(kft.data.load("amp"), k=3).parameters`
    """
    longest = max(map(len, data.train.inputs))
    if not 1 <= k <= longest:
        raise ValueError(f"k must be 1 to {longest}, the longest training sequence; received {k}")
    words = CountVectorizer(analyzer="char", ngram_range=(k, k), lowercase=False, dtype=np.float64)
    return fit_linear(f"{k}-mers", [words], data)


def one_hot(data: Dataset) -> Baseline:
    """Fit a linear model on which residue is at each position: the additive model.

    Args:
        data: A data set whose sequences all have one length. The positions are
            `data.variable_positions`, or else those at which the training sequences differ.

    Returns:
        Baseline: of logistic regression (one per label) or ridge regression.

    Raises:
        ValueError: Sequences differ in length, training sequences are all the same, targets are
            given per residue, or there is no test split.

    Example:
        `one_hot(kft.data.load("gb1")).name`  # "one-hot, 4 positions"
    """
    steps, positions = one_hot_steps(data)
    return fit_linear(f"one-hot, {positions} positions", steps, data)


def one_hot_steps(data: Dataset) -> tuple[list[BaseEstimator], int]:
    """Return the transformers of `one_hot`, and the number of positions.

    Args:
        data: As for `one_hot`.
    """
    checked_task(data, RECORD_TASKS)
    lengths = _lengths(data)
    if len(lengths) > 1:
        raise ValueError(
            f"one_hot needs sequences of one length, received lengths {min(lengths)} to "
            f"{max(lengths)}; align them first, or use composition or kmers"
        )
    positions: Any = data.variable_positions
    if positions is None:
        letters = _letters(data.train.inputs)
        positions = np.flatnonzero((letters != letters[0]).any(axis=0))
    if not len(positions):
        raise ValueError("one_hot needs training sequences that differ, but they are all the same")
    # An unseen residue is a row of zeros: it is predicted from the other positions.
    encoder = OneHotEncoder(handle_unknown="ignore")
    return [_Residues(tuple(positions)), encoder], len(positions)


def nearest_neighbours(
    data: Dataset, neighbours: Sequence[int] = (1, 3, 5, 9, 17), side: int = 32
) -> Baseline:
    """Predict from the images whose raw pixels are nearest, by Euclidean distance.

    Args:
        data: A data set of images.
        neighbours: Numbers of neighbours to try; the one that does best on the validation split is
            taken.
        side: Images are resized to side x side pixels.

    Returns:
        Baseline: its `penalty` is None.

    Raises:
        ValueError: Targets are given per residue, or there is no test split.

    Example:
        `nearest_neighbours(kft.data.load("digits")).predictions`
    """
    start = time.perf_counter()
    task = checked_task(data, RECORD_TASKS)
    features = _Pixels(side, data.value_range)
    folds = folds_of(data, features)
    errors: dict[int, float] = {}

    def fitted(k: int, inputs: np.ndarray, targets: np.ndarray) -> Any:
        if task.target == "labels":
            return EachLabel(lambda: KNeighborsClassifier(k)).fit(inputs, targets)
        kind = KNeighborsClassifier if task.target == "class" else KNeighborsRegressor
        return kind(k).fit(inputs, targets)

    for k in [k for k in neighbours if k <= min(len(fold[0]) for fold in folds)]:
        losses = []
        for inputs, targets, held_out, held_out_targets in folds:
            found = fitted(k, inputs, targets).predict(held_out)
            wrong = np.square(found - held_out_targets)
            losses.append(np.mean(wrong if task.target == "number" else wrong != 0))
        errors[k] = float(np.mean(losses))
    k = min(errors, key=lambda k: errors[k])
    inputs, targets = all_but_test(data)
    model = fitted(k, features.transform(inputs), targets)
    predictions = predicted(data, model, features.transform(test_of(data).inputs))
    seconds = time.perf_counter() - start
    return Baseline(f"{k} nearest neighbours", predictions, seconds, 0)


def linear(data: Dataset) -> Baseline:
    """Fit a linear model on the columns of a table.

    Args:
        data: A data set of rows of a table; missing values are filled, see `table_models`.

    Returns:
        Baseline: of logistic regression (one per label) or ridge regression.

    Raises:
        ValueError: There is no test split.

    Example:
        `linear(kft.data.load("two_cities")).predictions`
    """
    return fit_linear("linear model", [Columns()], data)


def random_forest(data: Dataset, seed: int = 0) -> Baseline:
    """Fit a random forest of 200 trees on the columns of a table.

    Args:
        data: As for `linear`.
        seed: Seed of the trees.

    Returns:
        Baseline: its `parameters` are 0, since trees have no coefficients.

    Raises:
        ValueError: There is no test split.

    Example:
        `random_forest(kft.data.load("two_cities")).predictions`
    """
    return _fit_trees("random forest", forest, data, seed)


def gradient_boosting(data: Dataset, seed: int = 0) -> Baseline:
    """Fit boosted trees, by histograms, on the columns of a table.

    Args:
        data: As for `linear`.
        seed: As for `random_forest`.

    Returns:
        Baseline: as for `random_forest`.

    Raises:
        ValueError: There is no test split.

    Example:
        `gradient_boosting(kft.data.load("two_cities")).predictions`
    """
    return _fit_trees("gradient boosting", boosting, data, seed)


def _fit_trees(name: str, make: Callable[..., Any], data: Dataset, seed: int) -> Baseline:
    """Fit a model of trees, each label or column of numbers by itself, on all but test."""
    start = time.perf_counter()
    target = checked_task(data, RECORD_TASKS).target
    inputs, targets = all_but_test(data)
    features = Columns(scaled=False)
    model: Any = make(target, seed)
    if target == "labels":
        model = EachLabel(lambda: make(target, seed))
    elif np.ndim(targets) > 1:
        model = MultiOutputRegressor(model)
    model.fit(features.fit_transform(inputs), targets)
    predictions = predicted(data, model, features.transform(test_of(data).inputs))
    return Baseline(name, predictions, time.perf_counter() - start, 0)


def window(data: Dataset, width: int = 15, rows: int = 50_000, seed: int = 0) -> Baseline:
    """Fit a linear model on which amino acid is at each place around a residue.

    This shows what local sequence predicts of secondary structure: windows of 13 and of 17 were
    used by the networks of Qian and Sejnowski (1988, J. Mol. Biol. 202:865) and of Holley and
    Karplus (1989, PNAS 86:152). Places beyond the chain's ends, and letters other than the 20 amino
    acids, are empty.

    Args:
        data: A data set of protein sequences with a class or a number per residue.
        width: Number of places in the window, with the residue in its middle; 1 is the residue
            alone.
        rows: Largest number of residues to fit. If the masks mark more, they are drawn at random
            from training and validation split together; those of the latter choose the penalty.
        seed: Seed of the draw, the only source of randomness.

    Returns:
        Baseline: with a prediction for every residue of the test split.

    Raises:
        ValueError: `width` is even or below 1, `rows` is below 1, targets are not per residue,
            there is no test split, or the masks mark no residue.

    Example:
        >>> from kft.data import Dataset, Split
        >>> chains = Split(["AAGGA", "GGA"], [[0, 0, 1, 1, 0], [1, 1, 0]])
        >>> toy = Dataset("toy", "residue_classification", chains, None, chains, source="typed in",
        ...               licence="none", citation="", checksum="", classes=("helix", "turn"))
        >>> [rows.shape for rows in window(toy, width=3).predictions]
        [(5, 2), (3, 2)]
    """
    start = time.perf_counter()
    if check_integer("width", width) % 2 == 0:
        raise ValueError(f"width must be odd, with the residue in the middle; received {width}.")
    check_integer("rows", rows)
    checked_task(data, RESIDUE_TASKS)
    letters = [ord(letter) for letter in AMINO_ACIDS]
    encoder = OneHotEncoder(categories=[letters] * width, handle_unknown="ignore")
    name = "residue" if width == 1 else f"{width}-residue window"
    fitted = fit_linear(name, [encoder], _by_residue(data, width, rows, seed))
    predictions = _by_chain(fitted.predictions, test_of(data).inputs)
    return replace(fitted, predictions=predictions, seconds=time.perf_counter() - start)


def published(data: Dataset, field: str) -> Baseline:
    """Return the prediction of another program that comes with the data set.

    Args:
        data: A data set with a class per residue. The `parameters` of its test split hold a string
            per chain in this field, with a letter, the name of a class, per residue.
        field: Name of the field, such as "PSIPRED prediction".

    Returns:
        Baseline: probability 1 for the class predicted; nothing is fitted.

    Raises:
        ValueError: If the task is another, there is no test split or no such field, or a string
            does not have the name of a class for each residue.

    Example:
        >>> from kft.data import Dataset, Split
        >>> rows = np.array([("CCH",)], dtype=[("PSIPRED prediction", "U3")])
        >>> chains = Split(["AAG"], [[0, 1, 1]], parameters=rows)
        >>> toy = Dataset("toy", "residue_classification", chains, None, chains, source="typed in",
        ...               licence="none", citation="", checksum="", classes=("C", "H"))
        >>> published(toy, "PSIPRED prediction").predictions[0].argmax(axis=1)
        array([0, 0, 1])
    """
    start = time.perf_counter()
    checked_task(data, [Task.RESIDUE_CLASSIFICATION])
    test, names, fields = test_of(data), data.classes or (), _published_fields(data)
    if test.parameters is None or field not in fields:
        raise ValueError(
            f"field must be a prediction in the parameters of the test split of {data.name!r} "
            f"({', '.join(fields) or 'it has none'}), received {field!r}"
        )
    one_hot_rows = dict(zip(names, np.eye(len(names)), strict=True))
    predictions = []
    for chain, letters in zip(test.inputs, test.parameters[field], strict=True):
        if len(letters) != len(chain) or not set(letters) <= set(names):
            raise ValueError(
                f"{field!r} must have one of the letters {', '.join(names)} for each of the "
                f"{len(chain)} residues of {chain[:20]}..., received {letters!r}"
            )
        predictions.append(np.array([one_hot_rows[letter] for letter in letters]))
    seconds = time.perf_counter() - start
    return Baseline(f"{field} of the package", predictions, seconds, parameters=0, given=True)


def _published_fields(data: Dataset) -> list[str]:
    parameters = getattr(data.test, "parameters", None)
    names = () if parameters is None else parameters.dtype.names or ()
    return [name for name in names if name.endswith(PUBLISHED)]


def suited(data: Dataset) -> dict[str, Callable[[Dataset], Baseline]]:
    """Return the baselines that suit the data, the simplest first.

    Args:
        data: A data set.

    Returns:
        dict: name -> function of the data. These are the constant predictor; one-hot for
        regression on sequences of one length, composition for all else; and 3-mers. (3-mers see
        what one-hot cannot: mutations that meet within three residues. On GB1 they are the
        stronger of the two.) For residue tasks the constant predictor, the residue alone, and the
        window of 15, and for a class per residue the predictions that come with the data set. For
        images the constant predictor and the nearest neighbours; for pairs of proteins those of
        `pair_baselines`; for rows of a table the constant
        predictor, a linear model, a random forest and boosted trees.

    Raises:
        ValueError: The task is unknown, there is no test split, or the masks mark no residue.

    Example:
        `[fit(data) for fit in suited(data).values()]`
    """
    task = checked_task(data, RECORD_TASKS + RESIDUE_TASKS)
    fits: dict[str, Callable[[Dataset], Baseline]]
    if task.per_residue:
        fits = {"constant": constant, "residue": partial(window, width=1), "window": window}
        fields = _published_fields(data) if task == Task.RESIDUE_CLASSIFICATION else []
        return fits | {field: partial(published, field=field) for field in fields}
    possible = task.baselines(getattr(data, "input_kind", None) or kind_of(data.train.inputs))
    if "one_hot" in possible:
        aligned = task.target == "number" and len(_lengths(data)) == 1
        unsuited = "composition" if aligned else "one_hot"
        possible = tuple(name for name in possible if name != unsuited)
    fits = {
        "constant": constant,
        "one_hot": one_hot,
        "composition": composition,
        "kmers": kmers,
        "degree": degree,
        "similar_pairs": similar_pairs,
        "pair_composition": pair_composition,
        "nearest_neighbours": nearest_neighbours,
        "linear": linear,
        "random_forest": random_forest,
        "gradient_boosting": gradient_boosting,
    }
    return {name: fit for name, fit in fits.items() if name in possible}


def fit_all(data: Dataset, progress: Callable[[str], None] | None = None) -> list[Baseline]:
    """Fit the baselines that suit the data.

    Args:
        data: A data set.
        progress: Function that is called with one line before each fit, such as `print`.

    Returns:
        list of Baseline: those that `suited` names, in its order.

    Raises:
        ValueError: As `suited` and the baselines.

    Example:
        `baselines = fit_all(kft.data.load("amp"), progress=print)`
    """
    fits, fitted = suited(data), []
    for number, (name, fit) in enumerate(fits.items(), start=1):
        if progress is not None:
            progress(f"baseline {number}/{len(fits)}: {name}")
        fitted.append(fit(data))
    return fitted


class _Pixels(TransformerMixin, BaseEstimator):
    """Images of any kind and size -> their pixels (N, side * side * 3), 0 to 255."""

    def __init__(self, side: int, value_range: tuple[float, float] | None):
        self.side, self.value_range = side, value_range

    def fit(self, images: Sequence, targets: Any = None) -> _Pixels:
        self.value_range = self.value_range or find_range(images)
        return self

    def transform(self, images: Sequence) -> np.ndarray:
        rows = []
        for i, image in enumerate(images):
            pixels = read_pixels(image, f"images[{i}]", self.value_range)
            rows.append(resized_pixels(pixels, self.side, self.side).ravel())
        return np.array(rows, dtype="float32")


class _Residues(TransformerMixin, BaseEstimator):
    """Sequences of one length -> the letters at the given positions (N, P)."""

    def __init__(self, positions: tuple[int, ...]):
        self.positions = positions

    def fit(self, sequences: Sequence[str], targets: Any = None) -> _Residues:
        return self

    def transform(self, sequences: Sequence[str]) -> np.ndarray:
        return _letters(sequences)[:, list(self.positions)]


def _letters(sequences: Sequence[str]) -> np.ndarray:
    """Return sequences of one length as letters (N, L)."""
    return np.array([list(sequence) for sequence in sequences])


def _by_residue(data: Dataset, width: int, rows: int, seed: int) -> SimpleNamespace:
    """Return a data set with a record per residue: its window, its target, its chain's group.

    Outside test it holds at most `rows` of the residues that the masks mark; of test it holds all.
    """
    splits = outside_test(data)
    marked = [marked_residues(split) for split in splits]
    places = np.flatnonzero(np.concatenate(marked))
    drawn = np.zeros(sum(map(len, marked)), dtype=bool)
    drawn[np.random.default_rng(seed).permutation(places)[:rows]] = True
    parts = []
    for split, chosen in zip(splits, _by_chain(drawn, marked), strict=True):
        windows, chain = _windows(split.inputs, width, chosen)
        # Residues of one chain are no more independent than records of one group.
        groups = chain if split.groups is None else np.asarray(split.groups)[chain]
        targets = np.concatenate(split.targets)[chosen]
        parts.append(SimpleNamespace(inputs=windows, targets=targets, groups=groups))
    return SimpleNamespace(
        name=data.name,
        task=Task(data.task).per_record,
        classes=data.classes,
        train=parts[0],
        valid=parts[1] if len(parts) > 1 else None,
        test=SimpleNamespace(inputs=_windows(test_of(data).inputs, width)[0]),
    )


def _by_chain(rows: Any, chains: Sequence) -> list[np.ndarray]:
    """Cut an array with a row per residue of all chains into one array per chain."""
    ends = np.cumsum([len(chain) for chain in chains])
    return [part.copy() for part in np.split(rows, ends[:-1])]


def _windows(
    chains: Sequence[str], width: int, chosen: np.ndarray | slice = slice(None)
) -> tuple[np.ndarray, np.ndarray]:
    """Return the letters around chosen residues (N, width), as bytes, and their chains' numbers."""
    # With a gap of half a window between chains, no window reaches from one into the next.
    gap = " " * (width // 2)
    row = (gap + gap.join(chains) + gap).encode("ascii", "replace")  # a byte per letter
    chain = np.repeat(np.arange(len(chains)), [len(residues) for residues in chains])
    starts = np.arange(len(chain)) + len(gap) * chain
    windows = sliding_window_view(np.frombuffer(row, dtype=np.uint8), width)
    return windows[starts[chosen]], chain[chosen]


def _lengths(data: Dataset) -> set[int]:
    splits = (data.train, data.valid, data.test)
    return {len(sequence) for split in splits if split is not None for sequence in split.inputs}
