"""Filling the weights of a model from the tensors of a checkpoint, strictly in both directions."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from kft.backbones.checkpoints.mapping import LoadReport, Tensors
from kft.messages import listed


def _unchanged(array: np.ndarray) -> np.ndarray:
    """Return the array of the checkpoint as it is."""
    return array


@dataclass(frozen=True)
class Origin:
    """Location of the values of one weight in a checkpoint.

    Attributes:
        names: Names of the tensors; several are joined along their first axis.
        shape: Shape in the checkpoint, after joining; None means any size of an axis.
        convert: Function from the array of the checkpoint to the array of the weight.
    """

    names: tuple[str, ...]
    shape: tuple[int | None, ...]
    convert: Callable[[np.ndarray], np.ndarray] = _unchanged


def fill(
    variables: Mapping[str, Any],
    origins: Mapping[str, Origin],
    tensors: Tensors,
    *,
    names: Mapping[str, str],
    source: str,
    kind: str = "a model",
    skipped: re.Pattern,
    optional: Collection[str] = (),
    tied: Mapping[str, str] = MappingProxyType({}),
    also_read: Iterable[str] = (),
) -> LoadReport:
    """Fill every weight of a model, or raise an error that lists all that does not fit.

    Args:
        variables: {path: weight}, anything with an `assign`.
        origins: {path: `Origin`} of all weights.
        tensors: The checkpoint.
        names: {name as in `origins`: name in the checkpoint} of all tensors.
        source: Name of the checkpoint in errors.
        kind: Name of the model in errors, for example "an ESM-2".
        skipped: Names of tensors that are left out; every other one has to be used.
        optional: Parts, by the first component of paths, that may be missing as a whole.
        tied: {name: name of the tensor that it has to be equal to}, of copies that are left out.
        also_read: Names of tensors that are read for other purposes than weights.

    Returns:
        The report; weights that are missing keep their values.

    Raises:
        ValueError: Tensors that are missing, unknown, of another shape or not floating-point.

    Example:
        >>> class Variable:
        ...     def assign(self, array):
        ...         self.array = array
        >>> tensors = Tensors.of({"dense.weight": np.zeros((2, 3))})
        >>> origins = {"dense/kernel": Origin(("dense.weight",), (2, 3), np.transpose)}
        >>> options = {"names": {"dense.weight": "dense.weight"}, "skipped": re.compile("")}
        >>> fill({"dense/kernel": Variable()}, origins, tensors, source="file", **options).filled
        ('dense/kernel',)
    """
    used = {name for origin in origins.values() for name in origin.names}
    unused = [name for name in names if name not in used and name not in tied]
    read = [names[name] for name in names if name in used or name in set(also_read)]
    problems = [
        _missing(origins, names, optional),
        _clause("unknown", sorted(names[n] for n in unused if not skipped.fullmatch(n))),
        _clause("", [*_misshapen(origins, tensors, names), *_untied(tied, tensors, names, kind)]),
        _clause("", tensors.no_floats(read)),
    ]
    if found := "; ".join(filter(None, problems)):
        raise ValueError(
            f"{source} does not fit {kind} of this size: {found}. Nothing was loaded. The file is "
            f"incomplete, or of another architecture or size."
        )
    filled = _assign(variables, origins, tensors, names)
    missing = tuple(path for path in origins if path not in filled)
    return LoadReport(source, filled, missing, tuple(sorted(names[n] for n in unused)))


def _assign(
    variables: Mapping[str, Any],
    origins: Mapping[str, Origin],
    tensors: Tensors,
    names: Mapping[str, str],
) -> tuple[str, ...]:
    """Fill the weights whose tensors are there; return their paths."""
    filled = [path for path, origin in origins.items() if set(origin.names) <= names.keys()]
    for path in filled:
        parts = [tensors[names[name]] for name in origins[path].names]
        array = parts[0] if len(parts) == 1 else np.concatenate(parts)
        variables[path].assign(origins[path].convert(array))
    return tuple(filled)


def _clause(start: str, items: list[str]) -> str:
    return f"{start} {listed(items)}".strip() if items else ""


def _missing(
    origins: Mapping[str, Origin], names: Mapping[str, str], optional: Collection[str]
) -> str:
    """A part may be missing as a whole, never partly."""
    present = {path.split("/")[0] for path, x in origins.items() if set(x.names) & names.keys()}
    needed = [
        name
        for path, origin in origins.items()
        for name in origin.names
        if path.split("/")[0] in present or path.split("/")[0] not in optional
    ]
    return _clause("missing", sorted({name for name in needed if name not in names}))


def _misshapen(
    origins: Mapping[str, Origin], tensors: Tensors, names: Mapping[str, str]
) -> Iterator[str]:
    for origin in origins.values():
        if not set(origin.names) <= names.keys():
            continue
        shapes = [tensors.shape(names[name]) for name in origin.names]
        shape = (sum(s[0] for s in shapes), *shapes[0][1:]) if len(shapes) > 1 else shapes[0]
        expected = origin.shape
        if len(shape) == len(expected):
            expected = tuple(n if m is None else m for n, m in zip(shape, expected, strict=True))
        if shape != expected:
            shown = " and ".join(names[name] for name in origin.names)
            yield f"{shown} is {shape}, expected {expected}"


def _untied(
    tied: Mapping[str, str], tensors: Tensors, names: Mapping[str, str], kind: str
) -> Iterator[str]:
    for copy, original in tied.items():
        if copy in names and original in names:
            same = np.array_equal(tensors[names[copy]], tensors[names[original]])
            if not same:
                yield f"{names[copy]} differs from {names[original]}, to which {kind} ties it"
