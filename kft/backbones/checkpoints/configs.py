"""Entries of a model's configuration file, each checked when it is read."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from kft.arguments import check_flag, check_integer, check_number_above, check_share
from kft.backbones.checkpoints.mapping import Tensors
from kft.messages import shown

# Above the largest model there is, and small enough for a model that is refused to be refused soon.
MOST_BLOCKS, MOST_WIDTH, MOST_HEADS = 256, 65_536, 1024
_MOST_PARAMETERS = 30_000_000_000
_REQUIRED = object()


class Config:
    """The entries of a configuration file.

    Args:
        entries: Content of the file.
        source: Name of the checkpoint in errors.
        file: What errors call the file.

    Raises:
        ValueError: The entries are not an object.

    Example:
        >>> config = Config({"hidden_size": 0}, "model")
        >>> config.integer("hidden_size")
        Traceback (most recent call last):
        ...
        ValueError: model: hidden_size in config.json must be an integer of at least 1, received 0.
    """

    def __init__(self, entries: Any, source: object, file: str = "config.json"):
        self.source, self.file = source, file
        if not isinstance(entries, Mapping):
            raise ValueError(f"{source}: {file} must hold an object, received {shown(entries)}.")
        self.entries: Mapping[str, Any] = entries

    def __contains__(self, key: str) -> bool:
        return self.entries.get(key) is not None

    def called(self, key: str) -> str:
        """Return what errors call an entry.

        Args:
            key: Its key.
        """
        return f"{self.source}: {key} in {self.file}"

    def value(self, key: str, default: Any = _REQUIRED) -> Any:
        """Return an entry of any type.

        Args:
            key: Its key.
            default: What an absent entry and null mean; without it the entry is required.

        Raises:
            ValueError: The entry is required and absent.
        """
        found = self.entries.get(key)
        if found is not None:
            return found
        if default is _REQUIRED:
            raise ValueError(
                f"{self.source}: {self.file} has no {key}, which a model needs: the file is "
                f"incomplete, or of another architecture."
            )
        return default

    def integer(
        self, key: str, maximum: int | None = None, minimum: int = 1, default: Any = _REQUIRED
    ) -> Any:
        """Return an entry that is an integer in a range.

        Args:
            key: Its key.
            maximum: Largest value allowed, None for no limit.
            minimum: Smallest value allowed.
            default: What an absent entry means, but not null; without it the entry is required.

        Raises:
            ValueError: It is absent, or another value.
        """
        if key not in self.entries and default is not _REQUIRED:
            return default
        return check_integer(self.called(key), self.value(key), minimum, maximum)

    def number(self, key: str, default: Any = _REQUIRED) -> Any:
        """Return an entry that is a finite number above 0.

        Args:
            key: Its key.
            default: As for `integer`.

        Raises:
            ValueError: It is absent, or another value.
        """
        if key not in self.entries and default is not _REQUIRED:
            return default
        return check_number_above(self.called(key), self.value(key))

    def integers(self, key: str, maximum: int, default: Sequence[int]) -> list[int]:
        """Return an entry that is a list of integers from 0.

        Args:
            key: Its key.
            maximum: Largest value allowed.
            default: As for `integer`.

        Raises:
            ValueError: It is another value.
        """
        found = self.entries.get(key, default)
        if not isinstance(found, list | tuple):
            raise ValueError(
                f"{self.called(key)} must be a list of integers, received {shown(found)}."
            )
        return [check_integer(f"each of {self.called(key)}", x, 0, maximum) for x in found]

    def share(self, key: str) -> float:
        """Return an entry that is a number from 0 to 1.

        Args:
            key: Its key.

        Raises:
            ValueError: It is absent, or another value.
        """
        return check_share(self.called(key), self.value(key))

    def flag(self, key: str, default: bool) -> bool:
        """Return an entry that is true or false.

        Args:
            key: Its key.
            default: What an absent entry and null mean.

        Raises:
            ValueError: It is another value.
        """
        try:
            return check_flag(self.called(key), self.value(key, default))
        except TypeError as error:
            raise ValueError(str(error)) from None

    def part(self, key: str) -> "Config":
        """Return an entry that is an object, an empty one if it is absent.

        Args:
            key: Its key.

        Raises:
            ValueError: It is another value.
        """
        return Config(self.value(key, {}), self.source, f"{key} of {self.file}")

    def insist(self, key: str, expected: Any, default: Any = None, kind: str = "a model") -> None:
        """Raise an error if an entry has another value than the only one that is supported.

        Args:
            key: Its key.
            expected: The value, or a tuple of several.
            default: What an absent entry means.
            kind: Name of the model in the error, for example "an ESM-2".

        Raises:
            ValueError: It has another value.
        """
        received = self.entries.get(key, default)
        accepted = expected if isinstance(expected, tuple) else (expected,)
        if received not in accepted:
            raise ValueError(
                f"{self.source} is not {kind}: its {self.file} has {key}={shown(received)}, "
                f"expected {' or '.join(map(repr, accepted))}."
            )

    def check_size(self, blocks: int, width: int, hidden_width: int, tensors: Any = None) -> None:
        """Raise an error for a model far larger than any, or than its file, before it is built.

        Args:
            blocks: Number of encoder blocks.
            width: Size of a hidden state.
            hidden_width: Units inside a feed-forward.
            tensors: The tensors that are to fill it, None for random weights.

        Raises:
            ValueError: It is too large.
        """
        parameters = blocks * width * (4 * width + 2 * hidden_width)
        known = isinstance(tensors, Tensors)
        held = sum(prod(tensors.shape(name)) for name in tensors) if known else _MOST_PARAMETERS
        most = 2 * held if known else held
        if parameters > most:
            has = f"its file has {held:,}" if known else f"kft builds at most {held:,}"
            raise ValueError(
                f"{self.source}: {self.file} describes a model of {parameters:,} parameters, and "
                f"{has}: the file is damaged, or of another model."
            )
