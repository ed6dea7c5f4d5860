"""Names of the classes of a checkpoint."""

from collections.abc import Mapping
from typing import Any

from kft.messages import shown


def class_names(config: Mapping[str, Any], count: int, source: str) -> list[str]:
    """Return the names of the classes of a classifier in Hugging Face's format.

    Args:
        config: Content of config.json.
        count: Number of classes of the classifier.
        source: What errors call the checkpoint.

    Returns:
        The names in the order of the outputs. transformers 4 leaves them out where they are the
        usual names, "LABEL_0" and so on.

    Raises:
        ValueError: The names are not {number: name}.

    Example:
        >>> class_names({"id2label": {"1": "helix", "0": "strand"}}, 2, "the model")
        ['strand', 'helix']
    """
    labels = config.get("id2label") or {i: f"LABEL_{i}" for i in range(count)}
    try:
        return [str(labels[key]) for key in sorted(labels, key=int)]
    except (TypeError, ValueError, KeyError):
        raise ValueError(
            f"{source}: id2label in config.json must be {{number: name of a class}}, received "
            f"{shown(labels)}."
        ) from None
