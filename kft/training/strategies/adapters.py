"""The strategy that trains low-rank adapters and the head."""

import math
import numbers
from dataclasses import dataclass
from typing import Any

import keras

from kft.lora import add_lora
from kft.lora import names as adapter_names
from kft.lora.layers import Settings
from kft.lora.owned import adapted
from kft.lora.targets import settings_for
from kft.messages import listed
from kft.params import weights
from kft.training.strategies.phases import Phase, blocks_and_head, multipliers_of, paths_of
from kft.training.strategies.registry import Strategy


@dataclass(frozen=True)
class LoRA(Strategy):
    """Train the head and low-rank adapters (Hu et al. 2021); see `kft.add_lora`.

    When: For the tasks of `full`, with a fraction of its memory. The result is a file of a few
    hundred kilobytes, and the model forgets less of its pre-training.

    Args:
        rank: Rank r of the adapters. Adapters that the model has already are kept if they have
            this rank and the settings below; others are an error.
        alpha: The adapter's output is scaled by alpha / r.
        dropout: Fraction of the inputs that are dropped in training.
        targets: Patterns of layers, see `kft.add_lora`; None for query and value of a transformer
            or all blocks of a convolutional network.
        rslora: Whether to scale by alpha / sqrt(r).
        dora: Whether to train the magnitudes of the columns of W + s A B too.
        bias: "none", "lora_only" or "all", see `kft.add_lora`.
        epochs: Number of epochs.
        learning_rate: Highest learning rate.
        warmup: Fraction of the steps in which the learning rate rises.
        layer_decay: Ratio of the learning rates of neighbouring blocks, see `LastBlocks`.
        learning_rate_multipliers: {pattern of layers: multiplier of their learning rate}.
        loraplus_lr_ratio: Learning rate of B divided by that of A, above 0; LoRA+ (Hayou et al.
            2024) takes 16.
        seed: Int from which A is drawn, None for the seed of `kft.fit`.

    Example:
        >>> LoRA(rank=4, loraplus_lr_ratio=16).epochs
        10
    """

    rank: int = 8
    alpha: float = 16
    dropout: float = 0.0
    targets: list | tuple | str | None = None
    rslora: bool = False
    dora: bool = False
    bias: str = "none"
    epochs: int = 10
    learning_rate: float = 1e-3
    warmup: float = 0.1
    layer_decay: float = 1.0
    learning_rate_multipliers: dict | None = None
    loraplus_lr_ratio: float = 1.0
    seed: int | None = None

    def prepare(self, model: keras.Model) -> keras.Model:
        """Add the adapters, unless the model has them.

        Args:
            model: A `kft.Model`, or any functional Keras model.

        Returns:
            The model itself.

        Raises:
            ValueError: Settings out of range; adapters that have other settings, or are merged or
                not active.
        """
        self._check_ratio()
        blocks_and_head(model)  # raises before anything is changed
        if not adapter_names(model):
            add_lora(model, seed=self.seed or 0, **self._settings())
        self._check_adapters(model)
        return model

    def phases(self, model: keras.Model) -> list[Phase]:
        """Return the one phase.

        Args:
            model: A model that `prepare` returned.

        Returns:
            List of one `Phase`.

        Raises:
            ValueError: The model has no adapters, or adapters that `prepare` refuses.
        """
        self._check_ratio()
        self._check_adapters(model)
        # The head of a model by itself was pre-trained too, and has adapters.
        head = [] if hasattr(model, "head_layers") else blocks_and_head(model)[1]
        holders = [layer for _, layer in adapted(model)]
        trainable = (*paths_of(model, holders), *paths_of(model, head))
        multipliers = multipliers_of(model, self.layer_decay, self.learning_rate_multipliers)
        if self.loraplus_lr_ratio != 1:
            second = {id(x.b) for layer in holders for x in layer.adapters.values()}
            for weight in weights(model):
                if id(weight.variable) in second:
                    before = multipliers.get(weight.path, 1.0)
                    multipliers[weight.path] = before * self.loraplus_lr_ratio
        name = "adapters and head" if head else "adapters"
        return [Phase(name, trainable, self.epochs, self.learning_rate, self.warmup, multipliers)]

    def _settings(self) -> dict[str, Any]:
        names = ("rank", "alpha", "dropout", "targets", "rslora", "dora", "bias")
        return {name: getattr(self, name) for name in names}

    def _check_ratio(self) -> None:
        ratio = self.loraplus_lr_ratio
        if not (isinstance(ratio, numbers.Real) and 0 < ratio < math.inf):
            raise ValueError(
                f"loraplus_lr_ratio must be a number above 0, 1 for the same learning rate, "
                f"received {ratio!r}."
            )

    def _check_adapters(self, model: keras.Model) -> None:
        """Raise an error where the active adapters are not those that are asked for."""
        holders = adapted(model)
        if not holders:
            raise ValueError(
                f"{model.name} has no adapters: call strategy.prepare(model) first, or "
                f"kft.add_lora."
            )
        if not any(layer.active and not layer.merged for _, layer in holders):
            raise ValueError(
                f"The adapters of {model.name} are not active or are merged: call kft.lora.use or "
                f"kft.unmerge_lora first."
            )
        wanted = settings_for(model, **self._settings())
        for name in dict.fromkeys(n for _, layer in holders for n in layer.active):
            present = {
                path: layer.adapters[name].settings
                for path, layer in holders
                if name in layer.adapters and not layer.adapters[name].settings.full
            }
            if present != wanted:
                raise ValueError(
                    f"The strategy asks for adapters of {_described(wanted)}; the adapter "
                    f"{name!r} of {model.name} has {_described(present)}. Give the strategy the "
                    f"settings of the adapter, call kft.fit without a strategy to train it as it "
                    f"is, or call kft.lora.remove(model) first."
                )


def _described(settings: dict[str, Settings]) -> str:
    """Settings in words: "rank=2, alpha=16 on block_0/query and block_0/value"."""
    groups: dict[str, list[str]] = {}
    for path, one in settings.items():
        shown = {"rank": one.rank, "alpha": one.alpha}
        shown |= {
            name: value
            for name in ("dropout", "rslora", "dora", "bias")
            if (value := getattr(one, name))
        }
        groups.setdefault(", ".join(f"{k}={v}" for k, v in shown.items()), []).append(path)
    return "; ".join(f"{text} on {listed(paths, 3)}" for text, paths in groups.items())
