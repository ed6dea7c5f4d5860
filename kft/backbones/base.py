"""The base class of backbones: a functional Keras model with an ordered list of stages."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from kft.backbones import contract
from kft.backbones.contract import ModuleNames
from kft.backbones.copies import Copied, adapters_of, flags, marked, restore, without_flags
from kft.keras_internals import set_untracked
from kft.params import layers


class Backbone(Copied):
    """Base class of backbones, whose copies and saved files keep adapters and frozen layers.

    A backbone of your own derives from it: the constructor connects the layers and calls this one,
    `get_config` adds the arguments of the constructor to those of this class. It is registered with
    `keras.saving.register_keras_serializable`, as any class that Keras saves. What is not stated
    has the default given below, also for a model of another class, such as one of keras-hub.

    Args:
        inputs: {name: symbolic input}, the names and shapes that `encode` returns.
        outputs: Symbolic float (B, D), (B, L, D) or (B, height, width, D); a model by itself may
            have any.
        stages: Layers in order, each its own node of the graph.
        name: Name of the Keras model.
        width: Size D of the features; None for the output's last axis.
        **kwargs: Further arguments of `keras.Model`.

    Attributes:
        stages: The layers in order. `kft.strategies` trains the last ones first, and `kft.split`
            cuts between them.
        width: Size D of the output's last axis.
        encode: Function from a list of raw inputs to {name: array}, see `kft.data.Encoder`; None
            where records are arrays already.
        position_mask: Symbolic bool, the shape of the output without its last axis: True at
            positions that heads use, such as residues; not set where they use all.
        lora_targets: Patterns of the layers that `kft.add_lora` adapts by default.
        objectives: Names of the ways to pre-train it: "masked_language" for a backbone with
            `masked_lm`, "masked_autoencoding" for one whose first stage makes patches and that has
            a method `decoder_block`.
        head_layers: Of a model by itself, the layers behind the stages, which strategies for heads
            train; not set where a head is put on the backbone.
        parts: {name of a strategy: patterns of the layers that it trains}, for parts of a model
            that have names of their own.
        published_heads: Layers that were published with the backbone and are not part of its graph,
            such as a language-model head. `kft.backbones.randomised` draws them too.
        revision: Commit of the Hugging Face hub that its weights were downloaded from, None for
            others; its config has it.
        keeps_adapters: Whether its config holds the adapters that are in it.

    A backbone that `kft.backbones.save` writes also has a method
    `to_hugging_face(dtype, **options)`, which returns the content of config.json and {name: array}.

    Example:
        >>> @keras.saving.register_keras_serializable("example")
        ... class Letters(Backbone):
        ...     def __init__(self, width, name="letters"):
        ...         letters = keras.Input((None,), dtype="int32", name="letters")
        ...         table = keras.layers.Embedding(27, width, name="table")
        ...         super().__init__({"letters": letters}, table(letters), [table], name)
        ...     def get_config(self):
        ...         return {"width": self.width, **super().get_config()}
        >>> backbone = Letters(8)
        >>> backbone.stages[0].trainable = False
        >>> Letters.from_config(backbone.get_config()).stages[0].trainable
        False
    """

    # A class attribute or a property.
    encode: Any = None
    lora_targets: Any = contract.QUERY_AND_VALUE
    objectives: tuple[str, ...] = ()
    published_heads: Any = ()
    keeps_adapters = True
    revision: str | None = None

    def __init__(
        self,
        inputs: Mapping[str, keras.KerasTensor],
        outputs: Any,
        stages: Sequence[keras.Layer],
        name: str,
        width: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(inputs, outputs, name=name, **kwargs)
        self.width = outputs.shape[-1] if width is None else width
        set_untracked(self, _stages=[stage.name for stage in stages])

    @property
    def stages(self) -> list[keras.Layer]:
        return [self.get_layer(name) for name in self._stages]

    def fan_in(self, variable: keras.Variable) -> float | None:
        """Return how many numbers one output of a weight is summed over, see `contract.fan_in`."""
        return contract.default_fan_in(variable)

    def module_names(
        self, paths: Iterable[str], head: keras.Layer | None, head_path: str
    ) -> ModuleNames:
        """Return what Hugging Face calls the layers in PEFT's files; by default their own paths.

        Args:
            paths: Paths of all layers of the model, as `kft.params.layers` has them.
            head: The head on the backbone, None without one.
            head_path: Path of the head.
        """
        return contract.default_module_names(paths)

    def _by_path(self) -> dict[str, keras.Layer]:
        """Return {path: layer}, the same in a model that is rebuilt from its config."""
        return layers(self)

    def get_config(self) -> dict[str, Any]:
        """Return the name, the adapters and what is frozen; a subclass adds its own arguments."""
        found = adapters_of(self._by_path())
        return {"name": self.name, **({"exchanged": found} if found else {}), **flags(self)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> keras.Model:
        """Rebuild a backbone from its config, with its adapters and frozen layers."""
        arguments = {k: v for k, v in without_flags(config).items() if k != "exchanged"}
        backbone = cls(**arguments)
        restore(backbone._by_path(), config.get("exchanged", {}))
        return marked(backbone, config)
