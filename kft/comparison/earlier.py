"""Names of trainings that kft wrote before its modules were moved.

The name of a training was a digest that included the module paths and the source of the strategy.
`earlier_strategies.json` holds that source.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

RENAMED = {
    "learning_rate_multipliers=": "rates=",
    "learning_rate=": "rate=",
    "loraplus_lr_ratio=": "b_ratio=",
}


@cache
def _sources() -> dict[str, str]:
    return json.loads(Path(__file__).with_name("earlier_strategies.json").read_text())


def earlier_settings(
    settings: dict, strategy: Any, seed: int, shuffled_labels: bool
) -> dict | None:
    """Return the settings whose digest was the name of a training in earlier versions.

    Args:
        settings: Settings that all trainings of a comparison depend on.
        strategy: Strategy of the training.
        seed: Seed of the training.
        shuffled_labels: Whether the labels were shuffled.

    Returns:
        dict, or None for a strategy that kft did not have then.
    """
    kind = type(strategy)
    if not kind.__module__.startswith("kft.") or kind.__name__ not in _sources():
        return None
    text = repr(strategy)
    for new, old in RENAMED.items():
        text = text.replace(new, old)
    head = settings["head"]
    if head["registered_name"] == f"kft>{head['class_name']}":
        head = {"module": "kft.heads", **head}
    return {
        **settings,
        "head": head,
        "strategy": text,
        "kind": f"kft.strategies.{kind.__name__}",
        "code": _sources()[kind.__name__],
        "seed": seed,
        "shuffles": shuffled_labels,
    }
