"""`evaluate`: what a model is worth on a data set, from its scores to its worst cases."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from kft.arguments import check_choice, check_instance, check_integer
from kft.comparison.copies import Copies
from kft.comparison.scoring import score_split, scored_part, scores_without
from kft.data import Dataset, Task, load
from kft.evaluation import baselines, metrics
from kft.evaluation.calibration import (
    Calibration,
    fit_temperature,
    judge_calibration,
    with_temperature,
)
from kft.evaluation.conformal import Conformal, fit_conformal
from kft.evaluation.groups import GroupAudit, audit, outcome
from kft.evaluation.means import mean_interval
from kft.evaluation.metrics import Interval, Scored, Scores
from kft.evaluation.outliers import fit_outliers
from kft.evaluation.transfer import Transfer, judge_transfer
from kft.inference import embed, predict
from kft.messages import shown
from kft.params.paths import check_model
from kft.plots import (
    plot_confusion,
    plot_groups,
    plot_reliability,
    plot_residuals,
    plot_roc_pr,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MANY_GROUPS = 50  # distinct numbers above which a column is a measurement, not the name of a group


def evaluate(
    model: keras.Model,
    data: Dataset | str,
    split: Literal["train", "valid", "test"] = "test",
    batch_size: int = 32,
    resamples: int = 1000,
    max_length: int | None = None,
    encode: Callable | None = None,
    copies: bool | pd.DataFrame = True,
    by: str | ArrayLike | None = None,
) -> Evaluation:
    """Judge a model on one split of a data set.

    Scores are computed at once, with 95% bootstrap intervals. If records of the split have near
    copies in training, so is the score without these records, and the difference with its paired
    interval. All else that the result has is computed when it is asked for.

    Args:
        model: A `kft.Model` whose head predicts the data set's task, or any Keras model that does:
            probabilities of classes or labels, or numbers.
        data: A `kft.data.Dataset`, or a name of `kft.data.names()`.
        split: "train", "valid" or "test".
        batch_size: Largest number of records per batch.
        resamples: Number of bootstrap resamples; whole groups are drawn if the split has groups,
            and whole chains if residues are scored.
        max_length: Number of residues to keep of each protein; None keeps all. Residues that are
            cut are not scored.
        encode: As for `kft.predict`.
        copies: True finds the records of the split with near copies in train and valid by
            `kft.exploration.near_copies` (once for a data set); a table of its form, whose column
            `test` counts the records of the split, names them; False leaves this out.
        by: Groups for which the model should work equally well, such as the sex of a person: a
            name for each record of the split, or a column of the split's `parameters`.

    Returns:
        `Evaluation`, a dict {metric name: interval} with the headline metric of the task first.
        Only residues that the split's `masks` mark are scored, and records count by the split's
        `weights`, except in prediction sets and in the figures that say so. If there are near
        copies, its `score_without_copies` and `price_of_copies` have the scores on the other
        records and the differences, and `print` shows a line on them.

    Raises:
        ValueError: The split is unknown or absent, the head predicts another task or another
            number of classes, or `by` or `copies` are not of the records of the split.

    Example:
        `kft.evaluate(model, kft.data.load("amp"))["AUROC"].value`
    """
    check_model(model)
    data = load(data) if isinstance(data, str) else data
    check_instance("data", data, Dataset, "a kft.data.Dataset or the name of one")
    if split not in data.splits:
        raise ValueError(
            f"split must be one of {', '.join(data.splits)} for {data.name}, received {split!r}."
        )
    _check_head(model, data)
    options = {"batch_size": batch_size, "max_length": max_length}
    found = Copies.of(data, split, copies)
    return Evaluation(model, data, split, options, encode, resamples, by, found)


class Evaluation(Scores):
    """What `kft.evaluate` found: a dict {metric name: interval}, and more when asked for.

    Predictions and what follows from them are computed once and kept. Use `str` or `print` for a
    summary in words; it predicts the valid split, if there is one.

    Args:
        model: As for `evaluate`.
        data: A `kft.data.Dataset`.
        split: Name of one of its splits.
        options: `batch_size` and `max_length` of `kft.predict`.
        encode: As for `evaluate`.
        resamples: As for `evaluate`.
        by: As for `evaluate`.
        copies: Records of the split with near copies in training.
    """

    def __init__(
        self,
        model: keras.Model,
        data: Dataset,
        split: str,
        options: dict[str, Any],
        encode: Callable | None,
        resamples: int,
        by: str | ArrayLike | None,
        copies: Copies,
    ):
        self.model, self.data, self.split = model, data, split
        self._options, self._encode, self._resamples, self._by = options, encode, resamples, by
        self._predicted: dict[str, Any] = {}
        if by is not None:
            self._named(by)  # raises its errors before anything is predicted
        self.scored = self._scored(split)
        scores = score_split(data, split, self.predictions, resamples)
        if not len(copies):
            super().__init__(scores, remark=copies.note)
            return
        both = scores_without(data, [self.predictions], copies, resamples)
        rest, price = ({name: one.interval() for name, one in part.items()} for part in both)
        name = scores.headline
        remark = f"{name} {rest[name]} without {copies}; the difference is {price[name]}."
        super().__init__(scores, rest, price, f"{remark} {copies.note}".strip())

    @property
    def predictions(self) -> Any:
        """What `kft.predict` returns for the split."""
        return self._predictions(self.split)

    @property
    def scores(self) -> Scores:
        """The scores alone, without model and data."""
        return Scores(self, self.score_without_copies, self.price_of_copies, self.remark)

    @cached_property
    def groups(self) -> GroupAudit:
        """Scores by group of the argument `by`, with the test whether groups differ."""
        if self._by is None:
            raise ValueError(
                "by is missing: name the groups of the records, kft.evaluate(model, data, by=...)."
            )
        return self.audit(self._by)

    def audit(self, by: str | ArrayLike) -> GroupAudit:
        """Score groups of records and test whether they differ, see `kft.evaluation.groups`.

        Args:
            by: As for `evaluate`.

        Returns:
            `kft.evaluation.groups.GroupAudit`.

        Raises:
            ValueError: There is no such column, or as for `kft.evaluation.groups.audit`.
        """
        name, groups = self._named(by)
        groups = groups[self.scored.owners]
        return audit(self.data.task, self.scored, groups, name, resamples=self._resamples)

    @cached_property
    def calibration(self) -> Calibration:
        """Calibration of the probabilities, with a temperature fitted on the valid split."""
        task = self.data.task
        options: dict[str, Any] = {"resamples": self._resamples}
        if not task.has_classes:
            raise ValueError(
                f"calibration is for probabilities, {self.data.name} is a {task}: see `conformal`."
            )
        targets, predictions, groups, weights = self.scored[:4]
        options |= {"groups": groups, "weights": weights}
        found = judge_calibration(task, targets, predictions, **options)
        note, temperature, after = self._without_validation, np.nan, None
        if not note:
            valid = self._scored("valid")
            temperature = fit_temperature(task, *valid[:2], valid.weights)
            note = (
                "every temperature that is lower, or every one that is higher, suits the valid "
                "split better"
            )
        if not np.isnan(temperature):
            note = ""
            scaled = with_temperature(task, predictions, temperature)
            after = judge_calibration(task, targets, scaled, **options)
        return Calibration(
            found.bins, found.error, found.expected, found.p, temperature, after, note
        )

    @cached_property
    def conformal(self) -> Conformal:
        """Prediction sets or intervals of 90%, from the errors on the valid split.

        New records have no weights, so held-out ones count alike; those of weight 0 are left out.
        """
        if self._without_validation:
            raise ValueError(f"conformal sets cannot be made: {self._without_validation}.")
        valid = _with_weight(self._scored("valid"))
        return fit_conformal(self.data.task, valid.targets, valid.predictions)

    @cached_property
    def coverage(self) -> Interval:
        """Share of records of the split whose truth `conformal` covers, with its interval."""
        scored = _with_weight(self.scored)
        covered = self.conformal.covers(*scored[:2])
        return mean_interval(covered, scored.groups, resamples=self._resamples)

    @cached_property
    def outliers(self) -> pd.DataFrame:
        """How far each record of the split is from the training data, see `evaluation.outliers`.

        A row per record: `distance`, and `p`, the p-value of "the record is like those of the valid
        split", NaN without one.
        """
        if not hasattr(self.model, "backbone"):
            raise ValueError("outliers need the features of a kft.Model, which has a backbone.")
        features = {
            name: embed(self.model, part.inputs, **self._options)
            for name, part in self.data.splits.items()
            if name in ("train", "valid", self.split)
        }
        found = fit_outliers(features["train"], features.get("valid"))
        here = features[self.split]
        p = np.full(len(here), np.nan)
        return pd.DataFrame(
            {
                "distance": found.score(here),
                "p": found.p_values(here) if "valid" in features else p,
            }
        )

    def worst(self, n: int = 10) -> pd.DataFrame:
        """Return the records that are predicted worst.

        Args:
            n: Number of records.

        Returns:
            DataFrame indexed by the position in the split, the worst first: `input`, `target`,
            `predicted`, and `error`: of classes 1 minus the probability of the true one, of labels
            and of residues the share that is wrong, of numbers the absolute error (per residue its
            mean). Residues that are not scored do not count.
        """
        check_integer("n", n)
        task, records = self.data.task, self.data.splits[self.split]
        targets, predictions = self.scored.targets, np.asarray(self.scored.predictions)
        right = outcome(task, targets, predictions).astype(float)
        errors = pd.Series(right if task.target == "number" else 1 - right)
        if task.per_residue:
            errors = errors.groupby(np.asarray(self.scored.owners)).mean()
        elif task.target == "class":
            errors = pd.Series(1 - _of_class(predictions, targets))
        worst = errors.sort_values(ascending=False, kind="stable").head(n)
        measured = self.data.as_measured(records.targets)
        return pd.DataFrame(
            {
                "input": [records.inputs[i] for i in worst.index],
                "target": [self._word(measured[i]) for i in worst.index],
                "predicted": [self._word(self.predictions[i], True) for i in worst.index],
                "error": worst.to_numpy(),
            },
            index=worst.index,
        )

    def transfer(self, new: Dataset | str, baseline: str = "constant") -> Transfer:
        """Judge whether the model works on other data as it is, see `kft.evaluation.transfer`.

        Args:
            new: Data of the same task and classes; the model is judged on their test split.
            baseline: What the model has to beat there, fitted to the training part of `new`: a name
                of `kft.baselines.suited(new)`. "constant" is a guess; one that learns asks for
                more, namely whether the labels of `new` are of better use without the model.

        Returns:
            `kft.evaluation.transfer.Transfer`, which prints as sentences that end in a verdict.

        Raises:
            ValueError: The task or the classes are others, there is no test split, or the baseline
                does not suit the data.

        Example:
            `print(kft.evaluate(model, here).transfer(there))`
        """
        there = load(new) if isinstance(new, str) else new
        check_instance("new", there, Dataset, "a kft.data.Dataset or the name of one")
        if (there.task, there.classes) != (self.data.task, self.data.classes):
            raise ValueError(
                f"new must have the task and classes of {self.data.name}, {self.data.task} of "
                f"{self.data.classes}; received {there.task} of {there.classes}."
            )
        if there.test is None:
            raise ValueError(f"new must have a test split, {there.name} has none: split it first.")
        fits = baselines.suited(there)
        fitted = fits[check_choice("baseline", baseline, fits)](there)
        predictions = predict(self.model, there.test.inputs, **self._options, encode=self._encode)
        expected: Any = there.as_measured(fitted.predictions)
        if there.task.per_residue:
            expected = [row[: len(x)] for row, x in zip(expected, predictions, strict=True)]
        one, other = self.scored, scored_part(there, "test", predictions)
        expected = scored_part(there, "test", expected).predictions
        if (one.groups is None) != (other.groups is None):  # then single records are groups
            one, other = _with_groups(one), _with_groups(other)
        return judge_transfer(self.data.task, one, other, expected, f"the baseline {fitted.name}")

    def figures(self) -> dict[str, tuple[Figure, str]]:
        """Draw the figures that suit the task.

        Returns:
            Name -> (figure, caption) for `kft.plots.save_figure`: "confusion" of classes, "roc_pr"
            and "reliability" of classes and labels, "residuals" of numbers, and "groups" if `by`
            was given.
        """
        task, about = self.data.task, {"data": self.data.name, "split": self.split}
        targets, predictions = self.scored.targets, np.asarray(self.scored.predictions)
        found = {}
        if task.has_classes:
            classes = list(self.data.classes or ())
            if task.target == "class":
                found["confusion"] = plot_confusion(targets, _called(predictions), classes, **about)
            found["roc_pr"] = plot_roc_pr(targets, predictions, classes, **about)
            found["reliability"] = plot_reliability(self.calibration, **about)
        else:
            quantity = self.data.target or "target"
            found["residuals"] = plot_residuals(targets, predictions, quantity, **about)
        if self.scored.weights is not None:
            for name in found.keys() - {"reliability"}:
                figure, caption = found[name]
                found[name] = figure, f"{caption} Records count alike here: weights are not used."
        if self._by is not None:
            found["groups"] = plot_groups(self.groups, **about)
        return found

    def to_frame(self) -> pd.DataFrame:
        """Return the scores as a DataFrame: a row per metric; columns `value`, `low`, `high`."""
        return pd.DataFrame.from_dict(dict(self), orient="index", columns=["value", "low", "high"])

    def __str__(self) -> str:
        kind = "residues" if self.data.task.per_residue else "records"
        n, where = len(self.scored.targets), f"the {self.split} split of {self.data.name}"
        lines = [super().__str__(), f"{n:,} {kind} of {where}; 95% intervals."]
        if metrics.hardly_varies(*self.scored[:2]):
            lines.append("The predictions hardly vary: the model has collapsed.")
        if self.data.task.has_classes:
            lines.append(f"Calibration: {self.calibration}")
        if self._without_validation:
            lines.append(f"Prediction sets: none, {self._without_validation}.")
        elif self.data.task.target != "labels":
            what = "sets" if self.data.task.has_classes else "intervals"
            weighted = self.scored.weights is not None
            alike = ", which count alike here: weights are not used" if weighted else ""
            lines.append(
                f"Prediction {what} of {self.conformal.confidence:.0%} cover {self.coverage} of "
                f"the {kind}{alike}."
            )
        if self._by is not None:
            lines.append(f"Groups: {self.groups}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return super().__str__()  # of the scores alone: nothing is predicted to show it

    @property
    def _without_validation(self) -> str:
        """Why there is nothing to fit temperature and thresholds on; "" if there is."""
        if self.split == "valid":
            return "the valid split is the one that is judged"
        valid = self.data.splits.get("valid")
        if valid is None or not len(valid):
            return f"{self.data.name} has no valid split"
        return ""

    def _predictions(self, split: str) -> Any:
        if split not in self._predicted:
            inputs = self.data.splits[split].inputs
            found = predict(self.model, inputs, **self._options, encode=self._encode)
            self._predicted[split] = found
        return self._predicted[split]

    def _scored(self, split: str) -> Scored:
        return scored_part(self.data, split, self._predictions(split))

    def _named(self, by: str | ArrayLike) -> tuple[str, np.ndarray]:
        """Return what groups are called, and the group of each record."""
        records = self.data.splits[self.split]
        name, column = "group", by
        if isinstance(by, str):
            known = () if records.parameters is None else records.parameters.dtype.names or ()
            if by not in known:
                raise ValueError(
                    f"by must be one of the columns of `parameters` of the {self.split} split "
                    f"({', '.join(known) or 'there are none'}) or a list with the group of each of "
                    f"its {len(records)} records, received {by!r}."
                )
            name, column = by, records.parameters[by]  # type: ignore[index]  # checked above
        elif isinstance(by, pd.Series) and by.name is not None:
            name = str(by.name)
        groups = np.asarray(column)
        if groups.shape != (len(records),):
            received = f"{len(groups)} names" if groups.ndim == 1 else shown(by)
            raise ValueError(
                f"by must name the group of each of the {len(records)} records of the {self.split} "
                f"split, received {received}."
            )
        if groups.dtype.kind == "f" and len(np.unique(groups)) > MANY_GROUPS:
            raise ValueError(
                f"by must name groups, received {len(np.unique(groups))} different numbers: cut "
                f"them into classes, for example with pandas.qcut."
            )
        return name, groups

    def _word(self, value: Any, is_prediction: bool = False) -> Any:
        """Return a target or a prediction in words: the name of its class or labels."""
        task, classes = self.data.task, self.data.classes
        if task.per_residue or classes is None:
            return np.asarray(value).squeeze().tolist()
        if task.target == "labels":
            return ", ".join(name for name, x in zip(classes, value, strict=True) if x > 0.5)
        return classes[int(_called(np.asarray(value)[None])[0]) if is_prediction else int(value)]


def _with_weight(part: Scored) -> Scored:
    """Return the records that count: all without weights, else those with a weight above 0."""
    if part.weights is None:
        return part
    return part.take(np.asarray(part.weights) > 0)


def _with_groups(part: Scored) -> Scored:
    return part if part.groups is not None else part._replace(groups=np.arange(len(part.targets)))


def _called(probabilities: np.ndarray) -> np.ndarray:
    """Return the predicted class (N,), from (N,) or (N, 1) of class 1 or (N, K)."""
    if probabilities.ndim == 1 or probabilities.shape[1] == 1:
        return (probabilities.reshape(-1) > 0.5).astype(int)
    return probabilities.argmax(axis=1)


def _of_class(probabilities: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the probability of the given class of each record, (N,)."""
    if probabilities.ndim == 1 or probabilities.shape[1] == 1:
        positive = probabilities.reshape(-1)
        return np.where(classes == 1, positive, 1 - positive)
    return probabilities[np.arange(len(classes)), classes.astype(int)]


def _check_head(model: keras.Model, data: Dataset) -> None:
    """Raise an error if the model's head does not predict the targets of the data set."""
    Task.named(data.task, "data.task")
    head = getattr(model, "head", None)
    task, outputs = getattr(head, "task", None), getattr(head, "units", None)
    if task is None:
        return  # a head of the user: errors are raised when its predictions are scored
    wanted = data.task.outputs(data.train.targets, data.classes)
    if task == data.task and outputs in (None, wanted):
        return
    raise ValueError(
        f"model.head must predict {data.name}, {_described(data.task, wanted)}, received "
        f"{type(head).__name__}, which predicts {_described(task, outputs)}: "
        f"use a model with the head kft.heads.for_data(data)."
    )


def _described(task: Any, outputs: int | None) -> str:
    return task if outputs in (None, 1) else f"{task} with {outputs} {task.outputs_are}"
