"""Strategies that train a named part of a model by itself, such as the mask decoder of a SAM."""

from dataclasses import dataclass

import keras

from kft.params import find
from kft.training.strategies.phases import Phase
from kft.training.strategies.registry import Strategy


@dataclass(frozen=True)
class PartOnly(Strategy):
    """Train one part of a model that names its parts; all else is frozen.

    When: For a SAM. What is frozen of the image encoder is computed once per image, so that an
    epoch costs the decoder alone.

    Args:
        part: Name of the part, one of `model.parts`.
        epochs: Number of epochs.
        learning_rate: Highest learning rate.
        warmup: Fraction of the steps in which the learning rate rises.

    Example:
        >>> PartOnly("mask_decoder").epochs
        10
    """

    part: str
    epochs: int = 10
    learning_rate: float = 1e-4
    warmup: float = 0.1

    def phases(self, model: keras.Model) -> list[Phase]:
        """Return the one phase.

        Args:
            model: A model with `parts`, such as a `kft.backbones.sam.Sam`.

        Returns:
            List of one `Phase`.

        Raises:
            ValueError: The model has no such part.
        """
        parts = getattr(model, "parts", {})
        if self.part not in parts:
            has = f"it has {', '.join(parts)}" if parts else "it names no parts"
            raise ValueError(
                f"{model.name} has no part {self.part!r}, {has}: the strategies iou_head, "
                f"mask_decoder and prompt_and_decoder are for a SAM, of kft.load('sam-vit-base')."
            )
        paths = tuple(path for path, _ in find(model, list(parts[self.part])))
        name = self.part.replace("_", " ")
        return [Phase(name, paths, self.epochs, self.learning_rate, self.warmup)]


@dataclass(frozen=True)
class IoUHead(PartOnly):
    """Train the head of a SAM that predicts how good its masks are; the masks stay as they are.

    When: The masks are good and their scores are not, so that the best of three is missed.

    Args:
        part: Name of the part.
        epochs: Number of epochs.
        learning_rate: Highest learning rate.
        warmup: Fraction of the steps in which the learning rate rises.

    Example:
        >>> IoUHead().part
        'iou_head'
    """

    part: str = "iou_head"
    learning_rate: float = 1e-3


@dataclass(frozen=True)
class MaskDecoder(PartOnly):
    """Train the mask decoder of a SAM, with the head that predicts how good its masks are.

    When: First, to adapt a SAM to images of another kind.

    Args:
        part: Name of the part.
        epochs: Number of epochs.
        learning_rate: Highest learning rate.
        warmup: Fraction of the steps in which the learning rate rises.

    Example:
        >>> MaskDecoder(epochs=2).epochs
        2
    """

    part: str = "mask_decoder"


@dataclass(frozen=True)
class PromptAndDecoder(PartOnly):
    """Train the prompt encoder and the mask decoder of a SAM.

    When: Prompts are of another kind too, such as boxes that are always too large.

    Args:
        part: Name of the part.
        epochs: Number of epochs.
        learning_rate: Highest learning rate.
        warmup: Fraction of the steps in which the learning rate rises.

    Example:
        >>> PromptAndDecoder().part
        'prompt_and_decoder'
    """

    part: str = "prompt_and_decoder"
