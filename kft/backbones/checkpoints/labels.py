"""Names of the classes of a checkpoint."""

from collections.abc import Mapping
from typing import Any


def class_names(config: Mapping[str, Any], count: int) -> list[str]:
    """Return the names of the classes of a classifier in Hugging Face's format.

    Args:
        config: Content of config.json.
        count: Number of classes of the classifier.

    Returns:
        The names in the order of the outputs. transformers 4 leaves them out where they are the
        usual names, "LABEL_0" and so on.

    Example:
        >>> class_names({"id2label": {"1": "helix", "0": "strand"}}, 2)
        ['strand', 'helix']
    """
    labels = config.get("id2label") or {i: f"LABEL_{i}" for i in range(count)}
    return [labels[key] for key in sorted(labels, key=int)]
