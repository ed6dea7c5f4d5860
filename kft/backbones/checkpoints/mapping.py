"""Tensors by name, each read when it is used, and the report of what became of them.

This way a model larger than half the memory can be loaded, one tensor at a time.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from kft.backbones.checkpoints.torch_files import CheckpointError
from kft.messages import shown

_FLOATS = {"float64", "float32", "float16", "bfloat16"}


@dataclass(frozen=True)
class LoadReport:
    """Report of what became of the tensors of a checkpoint.

    Attributes:
        source: Where it came from.
        filled: Paths of the weights that were filled.
        missing: Paths of the weights that the file does not hold; they keep random values.
        skipped: Names of tensors in the file that are not used.
    """

    source: str
    filled: tuple[str, ...]
    missing: tuple[str, ...]
    skipped: tuple[str, ...]


class Entry(NamedTuple):
    """Shape and type of a tensor in a checkpoint, and how to read it."""

    shape: tuple[int, ...]
    dtype: np.dtype  # as stored
    read: Callable[[], np.ndarray]


class Tensors(Mapping[str, np.ndarray]):
    """The tensors of a checkpoint by name; each is read when it is asked for, and not kept.

    Args:
        entries: Shape, stored type and reader of each tensor.
        dtype: Floating-point tensors are converted to this type; `None` keeps the
            stored one. Integers and booleans are never converted.
        source: Name of the checkpoint in errors.

    Raises:
        CheckpointError: When a floating-point tensor is asked for that holds NaN, an infinity, or
            a number that `dtype` cannot hold; names it.

    Example:
        >>> tensors = Tensors.of({"bias": np.zeros(3, "float16")})
        >>> tensors.shape("bias"), tensors["bias"].dtype
        ((3,), dtype('float32'))
    """

    def __init__(
        self, entries: Mapping[str, Entry], dtype: str | None = "float32", source: object = ""
    ):
        self._entries = dict(entries)
        self._dtype, self._source = dtype, source

    @classmethod
    def of(
        cls, arrays: Mapping[str, np.ndarray], dtype: str | None = "float32", source: object = ""
    ) -> "Tensors":
        """Serve arrays that are already here, such as those from `read_torch`.

        Args:
            arrays: Arrays by name.
            dtype, source: As for `Tensors`.

        Returns:
            The same tensors, as `Tensors`.

        Raises:
            CheckpointError: A value is not an array; the message names it.
        """
        for name, array in arrays.items():
            if not isinstance(name, str) or not isinstance(array, np.ndarray):
                raise CheckpointError(
                    f"{shown(name)} is a {type(array).__name__} where a tensor was expected"
                )
        entries = {n: Entry(a.shape, a.dtype, partial(np.asarray, a)) for n, a in arrays.items()}
        return cls(entries, dtype, source)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape without reading it."""
        return self._entries[name].shape

    def dtype(self, name: str) -> np.dtype:
        """Return the type that a tensor is stored in, without reading it."""
        return self._entries[name].dtype

    def no_floats(self, names: Iterable[str]) -> list[str]:
        """List those of some tensors that are not of floating-point numbers, without reading them.

        Args:
            names: Of tensors that are to be weights.

        Returns:
            One clause for each such tensor, for example "bias is stored as int8".
        """
        return [
            f"{name} is stored as {self.dtype(name)}, expected floating-point numbers (of a "
            f"quantised model take the original)"
            for name in names
            if self.dtype(name).name not in _FLOATS
        ]

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self._entries[name]
        if entry.dtype.name not in _FLOATS:
            return np.array(entry.read(), dtype=entry.dtype, order="C")
        stored = entry.read()
        with np.errstate(over="ignore", invalid="ignore"):
            # Always a copy: what is mapped is read-only and would change with the file.
            array = np.array(stored, dtype=self._dtype or entry.dtype, order="C")
            # One sum is NaN or infinite if any number is; the reverse is looked at below.
            finite = np.isfinite(array.sum(dtype=array.dtype))
        if not finite:
            _require_numbers(f"{self._source}: {name}".removeprefix(": "), stored, array)
        return array

    def __contains__(self, name: object) -> bool:
        return name in self._entries  # Mapping's own would read the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Tensors({len(self)} tensors)"


def _require_numbers(name: str, stored: np.ndarray, array: np.ndarray) -> None:
    wrong = ~np.isfinite(array)
    if wrong.any():
        first = np.asarray(stored)[wrong][0]
        too_large = f", which {array.dtype} cannot hold" if np.isfinite(first) else ""
        raise CheckpointError(
            f"{name} holds {wrong.sum():,} of {wrong.size:,} values that are not finite numbers, "
            f"the first {first:g}{too_large}. The file is damaged, or of a training that diverged: "
            f"take another copy or an earlier checkpoint."
        )
