"""Baselines: what a linear model on plain counts reaches, in seconds, on the same splits.

A fine-tuned model has to beat these to be worth its cost, so they are made as strong as the labels
outside test allow: the strength of the L2 penalty is chosen on `data.valid` (by five-fold
cross-validation on `data.train` where there is none), then the model is fitted on both. The test
split is used once, to predict. All models are scikit-learn's; they are the baselines of the FLIP
benchmark (Dallago et al. 2021) and older: amino-acid composition, k-mers, one-hot, and for a class
per residue the window around it; for images the nearest neighbours. Of residues, those count that
the splits' `masks` mark.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from kft.data.images.pixels import find_range, read_pixels, resized_pixels

if TYPE_CHECKING:
    from kft.data import Dataset
    from kft.data.dataset import Split

RECORD_TASKS = ("classification", "regression")
RESIDUE_TASKS = ("residue_classification", "residue_regression")
TASKS = RECORD_TASKS + RESIDUE_TASKS
AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
PUBLISHED = " prediction"  # how fields of `parameters` end that hold one of another program
STRENGTHS = (1e3, 1e2, 1e1, 1.0, 1e-1, 1e-2)  # of the L2 penalty; of equals the first wins


@dataclass(frozen=True)
class Baseline:
    """What a baseline predicts on the test split, and what that cost.

    Attributes:
        name: for tables and legends.
        predictions: (N, K) probabilities for classification, (N,) values for regression, float64;
            for a residue task a list of N arrays (L, K) with a row for every residue of the chain,
            whether it counts or not, as `kft.predict` returns it.
        seconds: wall-clock time to choose the penalty, fit and predict.
        parameters: number of fitted coefficients, intercepts included.
        penalty: strength of the L2 penalty that did best on the validation split; None if none.
    """

    name: str
    predictions: np.ndarray | list[np.ndarray]
    seconds: float
    parameters: int
    penalty: float | None = None


def constant(data: Dataset) -> Baseline:
    """Predict the same for every record or residue: the mean target, or each class's frequency.

    Args:
        data: a data set for classification or regression, of records or of residues.

    Returns:
        The `Baseline`. Its Spearman correlation is undefined and its AUROC is 0.5.

    Raises:
        ValueError: another task; no test split; no residue that counts.

    Example:
        `evaluation.score(data.task, data.test.targets, constant(data).predictions)`
    """
    start = time.perf_counter()
    _check(data, TASKS)
    classifies, by_residue = data.task.endswith("classification"), data.task in RESIDUE_TASKS
    model = DummyClassifier(strategy="prior") if classifies else DummyRegressor(strategy="mean")
    targets = _all_but_test(data)[1]
    model.fit(np.zeros((len(targets), 1)), targets)
    number = sum(map(len, data.test.inputs)) if by_residue else len(data.test.inputs)
    predictions = _predict(data, model, np.zeros((number, 1)))
    if by_residue:
        predictions = _by_chain(predictions, data.test.inputs)
    parameters = len(model.classes_) if classifies else 1
    name = "majority class" if classifies else "mean"
    return Baseline(name, predictions, time.perf_counter() - start, parameters)


def composition(data: Dataset) -> Baseline:
    """Fit a linear model on the fraction of each of the 20 amino acids.

    Args:
        data: a data set of protein sequences for classification or regression.

    Returns:
        The `Baseline`, of logistic regression or ridge regression.

    Raises:
        ValueError: the task is neither classification nor regression; there is no test split.

    Example:
        `composition(kft.data.load("amp")).predictions[:, 1]`
    """
    # Fractions differ in scale (few Trp, many Leu), and one penalty should weigh them alike.
    return _fit_linear("composition", [_Composition(), StandardScaler()], data)


def kmers(data: Dataset, k: int = 3) -> Baseline:
    """Fit a linear model on how often each word of k residues occurs.

    Args:
        data: a data set of protein sequences for classification or regression.
        k: length of the words; words never seen outside test are ignored.

    Returns:
        The `Baseline`, of logistic regression or ridge regression.

    Raises:
        ValueError: k is below 1 or longer than every training sequence; the task is neither
            classification nor regression; there is no test split.

    Example:
        `kmers(kft.data.load("amp"), k=3).parameters`
    """
    longest = max(map(len, data.train.inputs))
    if not 1 <= k <= longest:
        raise ValueError(f"k must be 1 to {longest}, the longest training sequence; received {k}")
    words = CountVectorizer(analyzer="char", ngram_range=(k, k), lowercase=False, dtype=np.float64)
    return _fit_linear(f"{k}-mers", [words], data)


def one_hot(data: Dataset) -> Baseline:
    """Fit a linear model on which residue stands at each position: the additive model.

    Args:
        data: a data set whose sequences all have one length. The positions are
            `data.variable_positions`, or else those at which the training sequences differ.

    Returns:
        The `Baseline`, of logistic regression or ridge regression.

    Raises:
        ValueError: sequences of several lengths; training sequences that are all the same; the
            task is neither classification nor regression; there is no test split.

    Example:
        `one_hot(kft.data.load("gb1")).name`  # "one-hot, 4 positions"
    """
    _check(data, RECORD_TASKS)
    lengths = _lengths(data)
    if len(lengths) > 1:
        raise ValueError(
            f"one_hot needs sequences of one length, received lengths {min(lengths)} to "
            f"{max(lengths)}; align them first, or use composition or kmers"
        )
    positions = data.variable_positions
    if positions is None:
        letters = _letters(data.train.inputs)
        positions = np.flatnonzero((letters != letters[0]).any(axis=0))
    if not len(positions):
        raise ValueError("one_hot needs training sequences that differ, but they are all the same")
    # An unseen residue is a row of zeros: it is predicted from the other positions.
    encoder = OneHotEncoder(handle_unknown="ignore")
    name = f"one-hot, {len(positions)} positions"
    return _fit_linear(name, [_Residues(tuple(positions)), encoder], data)


def nearest_neighbours(
    data: Dataset, neighbours: Sequence[int] = (1, 3, 5, 9, 17), side: int = 32
) -> Baseline:
    """Answer as the images do whose raw pixels are nearest, by Euclidean distance.

    Args:
        data: a data set of images for classification or regression.
        neighbours: how many are asked; the number that does best on the validation split is taken.
        side: images are made side x side pixels.

    Returns:
        The `Baseline`; its `penalty` is None.

    Raises:
        ValueError: the task is neither classification nor regression; there is no test split.

    Example:
        `nearest_neighbours(kft.data.load("digits")).predictions`
    """
    start = time.perf_counter()
    _check(data, RECORD_TASKS)
    classifies = data.task == "classification"
    kind = KNeighborsClassifier if classifies else KNeighborsRegressor
    features = _Pixels(side, data.value_range)
    folds, errors = _folds(data, features), {}
    for k in [k for k in neighbours if k <= min(len(fold[0]) for fold in folds)]:
        found = [(kind(k).fit(*fold[:2]).predict(fold[2]), fold[3]) for fold in folds]
        errors[k] = np.mean([np.mean(np.square(a - b) if not classifies else a != b)
                             for a, b in found])  # fmt: skip
    k = min(errors, key=errors.get)
    inputs, targets = _all_but_test(data)
    model = kind(k).fit(features.transform(inputs), targets)
    predictions = _predict(data, model, features.transform(data.test.inputs))
    seconds = time.perf_counter() - start
    return Baseline(f"{k} nearest neighbours", predictions, seconds, 0)


def window(data: Dataset, width: int = 15, rows: int = 50_000, seed: int = 0) -> Baseline:
    """Fit a linear model on which amino acid stands at each place around a residue.

    This is what local sequence tells of secondary structure: windows of 13 and of 17 were read by
    the networks of Qian and Sejnowski (1988, J. Mol. Biol. 202:865) and of Holley and Karplus
    (1989, PNAS 86:152). Beyond the chain's ends, and where a letter is none of the 20 amino acids,
    nothing stands.

    Args:
        data: a data set of protein sequences with a class or a number per residue.
        width: places in the window, the residue in its middle; 1 is the residue alone.
        rows: most residues to learn from. Where more count, they are drawn at random from
            training and validation split together; those of the latter choose the penalty.
        seed: of the draw, the only source of randomness.

    Returns:
        The `Baseline`, with a prediction for every residue of the test split.

    Raises:
        ValueError: width even or below 1; rows below 1; the task is none of residues;
            there is no test split; no residue counts.

    Example:
        >>> from kft.data import Dataset, Split
        >>> chains = Split(["AAGGA", "GGA"], [[0, 0, 1, 1, 0], [1, 1, 0]])
        >>> toy = Dataset("toy", "residue_classification", chains, None, chains, source="typed in",
        ...               licence="none", citation="", checksum="", classes=("helix", "turn"))
        >>> [rows.shape for rows in window(toy, width=3).predictions]
        [(5, 2), (3, 2)]
    """
    start = time.perf_counter()
    if width < 1 or width % 2 == 0:
        raise ValueError(
            f"width must be odd and at least 1, with the residue in the middle; received {width}"
        )
    if rows < 1:
        raise ValueError(f"rows must be at least 1, received {rows}")
    _check(data, RESIDUE_TASKS)
    letters = [ord(letter) for letter in AMINO_ACIDS]
    encoder = OneHotEncoder(categories=[letters] * width, handle_unknown="ignore")
    name = "residue" if width == 1 else f"{width}-residue window"
    fitted = _fit_linear(name, [encoder], _by_residue(data, width, rows, seed))
    predictions = _by_chain(fitted.predictions, data.test.inputs)
    return replace(fitted, predictions=predictions, seconds=time.perf_counter() - start)


def published(data: Dataset, field: str) -> Baseline:
    """Return the prediction of another program that comes with the data set.

    Args:
        data: a data set with a class per residue. Its test split's `parameters` hold, in this
            field, a string per chain: the class of each residue, by the letter that is its name.
        field: name of the field, such as "PSIPRED prediction".

    Returns:
        The `Baseline`, with probability 1 for the class predicted; nothing is fitted.

    Raises:
        ValueError: the task is another; there is no test split or no such field; a string has
            other letters than the names of classes, or not one for each residue.

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
    _check(data, ("residue_classification",))
    if field not in _published_fields(data):
        raise ValueError(
            f"field must be a prediction among the parameters of the test split of {data.name!r}, "
            f"received {field!r}; those are: {', '.join(_published_fields(data)) or 'none'}"
        )
    one_hot_rows = dict(zip(data.classes, np.eye(len(data.classes)), strict=True))
    predictions = []
    for chain, letters in zip(data.test.inputs, data.test.parameters[field], strict=True):
        if len(letters) != len(chain) or not set(letters) <= set(data.classes):
            raise ValueError(
                f"{field!r} must have one of the letters {', '.join(data.classes)} for each of the "
                f"{len(chain)} residues of {chain[:20]}..., received {letters!r}"
            )
        predictions.append(np.array([one_hot_rows[letter] for letter in letters]))
    seconds = time.perf_counter() - start
    return Baseline(f"{field} of the package", predictions, seconds, parameters=0)


def _published_fields(data: Dataset) -> list[str]:
    parameters = getattr(data.test, "parameters", None)
    names = () if parameters is None else parameters.dtype.names or ()
    return [name for name in names if name.endswith(PUBLISHED)]


def suited(data: Dataset) -> dict[str, Callable[[Dataset], Baseline]]:
    """Name the baselines that suit the data, the simplest first.

    Args:
        data: a data set for classification or regression, of records or of residues.

    Returns:
        Name -> function of the data. The constant predictor; one-hot for regression on sequences
        of one length, composition for all else; 3-mers. (3-mers see what one-hot cannot:
        mutations that meet within three residues. On GB1 they are the stronger of the two.) For
        residue tasks the constant predictor, the residue alone, and the window of 15, and for a
        class per residue the predictions that come with the data set. For images the constant
        predictor and the nearest neighbours.

    Raises:
        ValueError: another task; no test split; no residue that counts.

    Example:
        `[fit(data) for fit in suited(data).values()]`
    """
    _check(data, TASKS)
    if data.task in RESIDUE_TASKS:
        fits = {"constant": constant, "residue": partial(window, width=1), "window": window}
        fields = _published_fields(data) if data.task == "residue_classification" else []
        return fits | {field: partial(published, field=field) for field in fields}
    if not isinstance(data.train.inputs[0], str):
        return {"constant": constant, "nearest_neighbours": nearest_neighbours}
    aligned = data.task == "regression" and len(_lengths(data)) == 1
    return {fit.__name__: fit for fit in (constant, one_hot if aligned else composition, kmers)}


def fit_all(data: Dataset, progress: Callable[[str], None] | None = None) -> list[Baseline]:
    """Fit the baselines that suit the data.

    Args:
        data: a data set for classification or regression, of records or of residues.
        progress: called with one line before each fit, such as `print`.

    Returns:
        Those that `suited` names, in its order.

    Raises:
        ValueError: as `suited`, and what a baseline raises.

    Example:
        `baselines = fit_all(kft.data.load("amp"), progress=print)`
    """
    fits, fitted = suited(data), []
    for number, (name, fit) in enumerate(fits.items(), start=1):
        if progress is not None:
            progress(f"baseline {number}/{len(fits)}: {name}")
        fitted.append(fit(data))
    return fitted


class _Composition(TransformerMixin, BaseEstimator):
    """Sequences -> fraction of each amino acid (N, 20); other letters count in the length only."""

    def fit(self, sequences: Sequence[str], targets: Any = None) -> _Composition:
        return self

    def transform(self, sequences: Sequence[str]) -> np.ndarray:
        counts = np.array([[s.count(letter) for letter in AMINO_ACIDS] for s in sequences], float)
        return counts / np.maximum([len(s) for s in sequences], 1)[:, None]


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


def _fit_linear(name: str, steps: list[BaseEstimator], data: Dataset) -> Baseline:
    """Choose the penalty, fit on all labels outside test, predict test."""
    start = time.perf_counter()
    _check(data, RECORD_TASKS)
    features = make_pipeline(*steps)
    folds = _folds(data, features)
    penalty = min(STRENGTHS, key=lambda strength: _loss(data, strength, folds))
    inputs, targets = _all_but_test(data)
    model = _linear(data, penalty).fit(features.fit_transform(inputs), targets)
    predictions = _predict(data, model, features.transform(data.test.inputs))
    parameters = model.coef_.size + np.size(model.intercept_)
    return Baseline(name, predictions, time.perf_counter() - start, parameters, penalty)


def _outside_test(data: Dataset) -> list[Split]:
    return [part for part in (data.train, data.valid) if part is not None and len(part.inputs)]


def _all_but_test(data: Dataset) -> tuple[list, np.ndarray]:
    """Return the inputs of training and validation split, and the targets that count."""
    splits = _outside_test(data)
    inputs = [record for split in splits for record in split.inputs]
    if data.task in RESIDUE_TASKS:
        targets = [np.concatenate(split.targets)[_counted(split)] for split in splits]
    else:
        targets = [split.targets for split in splits]
    return inputs, np.concatenate(targets)


def _linear(data: Dataset, penalty: float) -> LogisticRegression | Ridge:
    # scikit-learn names the strength of the penalty in opposite ways: C = 1 / alpha.
    if data.task == "classification":
        return LogisticRegression(C=1 / penalty, max_iter=10_000)
    return Ridge(alpha=penalty)


def _folds(data: Dataset, features: BaseEstimator) -> list[tuple]:
    """What the penalty is chosen on, as rows of (features, targets, held-out features, targets)."""
    train, targets = features.fit_transform(data.train.inputs), np.asarray(data.train.targets)
    if data.valid is not None and len(data.valid.inputs):
        return [(train, targets, features.transform(data.valid.inputs), data.valid.targets)]
    # Without a group of its own, a record is one: then this is plain five-fold cross-validation.
    groups = np.arange(len(targets)) if data.train.groups is None else data.train.groups
    parts = GroupKFold(min(5, len(np.unique(groups)))).split(train, groups=groups)
    return [(train[fit], targets[fit], train[held], targets[held]) for fit, held in parts]


def _loss(data: Dataset, penalty: float, folds: list[tuple]) -> float:
    """Mean over folds of the held-out negative log likelihood or squared error."""
    losses = []
    for train, targets, held_out, held_out_targets in folds:
        predictions = _predict(data, _linear(data, penalty).fit(train, targets), held_out)
        if data.task == "classification":
            likelihood = predictions[np.arange(len(predictions)), held_out_targets]
            losses.append(-np.log(np.maximum(likelihood, 1e-12)).mean())
        else:
            losses.append(np.square(predictions - held_out_targets).mean())
    return float(np.mean(losses))


def _predict(data: Dataset, model: Any, features: Any) -> np.ndarray:
    """Return values (N,), or probabilities (N, K) with a zero for classes that train lacks."""
    if data.task.endswith("regression"):
        return np.asarray(model.predict(features), dtype=np.float64)
    probabilities = np.zeros((features.shape[0], len(data.classes)))
    probabilities[:, model.classes_] = model.predict_proba(features)
    return probabilities


def _letters(sequences: Sequence[str]) -> np.ndarray:
    """Return sequences of one length as letters (N, L)."""
    return np.array([list(sequence) for sequence in sequences])


def _by_residue(data: Dataset, width: int, rows: int, seed: int) -> SimpleNamespace:
    """Return a task with a record per residue: its window, its target, its chain's group.

    Outside test it holds at most `rows` of the residues that count; of test it holds all.
    """
    splits = _outside_test(data)
    counted = [_counted(split) for split in splits]
    places = np.flatnonzero(np.concatenate(counted))
    drawn = np.zeros(sum(map(len, counted)), dtype=bool)
    drawn[np.random.default_rng(seed).permutation(places)[:rows]] = True
    parts = []
    for split, chosen in zip(splits, _by_chain(drawn, counted), strict=True):
        windows, chain = _windows(split.inputs, width, chosen)
        # Residues of one chain are no more independent than records of one group.
        groups = chain if split.groups is None else np.asarray(split.groups)[chain]
        targets = np.concatenate(split.targets)[chosen]
        parts.append(SimpleNamespace(inputs=windows, targets=targets, groups=groups))
    return SimpleNamespace(
        name=data.name,
        task=data.task.removeprefix("residue_"),
        classes=data.classes,
        train=parts[0],
        valid=parts[1] if len(parts) > 1 else None,
        test=SimpleNamespace(inputs=_windows(data.test.inputs, width)[0]),
    )


def _counted(split: Split) -> np.ndarray:
    """Return whether the target of each residue counts, of all chains in one row."""
    if split.masks is None:
        return np.ones(sum(map(len, split.inputs)), dtype=bool)
    return np.concatenate(split.masks)


def _by_chain(rows: np.ndarray, chains: Sequence) -> list[np.ndarray]:
    """Cut what stands in one row for all residues into an array per chain."""
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


def _check(data: Dataset, tasks: tuple[str, ...]) -> None:
    if data.task not in tasks:
        raise ValueError(
            f"expected a data set for {' or '.join(tasks)}, received one for {data.task!r}; "
            "fit_all picks the baselines that suit a task"
        )
    if data.test is None:
        raise ValueError(f"data set {data.name!r} has no test split to predict; split it first")
    if data.task in RESIDUE_TASKS and not any(_counted(part).any() for part in _outside_test(data)):
        raise ValueError(
            f"no residue of data set {data.name!r} counts outside test: its masks are all False"
        )
