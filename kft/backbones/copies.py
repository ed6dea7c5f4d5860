"""Copies of models: what Keras's own ways to copy a model leave out.

Keras copies a layer by its config. The config of a layer that is made of others, such as a block of
a transformer, does not say which of them are frozen or have adapters; and the language-model head
reads the table of another layer. `Copied` adds that in `keras.models.clone_model`; `flags` and
`marked` add it to the config of a whole model, by which `copy.deepcopy`, `pickle` and files rebuild
it.
"""

from collections.abc import Mapping
from functools import wraps
from typing import Any

import keras

from kft.backbones import contract
from kft.backbones.quantized import (
    of_weights_alone,
    quantize_layers,
    quantized,
    restore_quantized,
)
from kft.backbones.rematerialised import is_marked, mark, rematerialised
from kft.keras_internals import GraphModel, own_trainable_weights, sublayers_of
from kft.messages import listed
from kft.params import Weight, layers, record_marks, user_marks, weights


class Copied(GraphModel):
    """A functional model whose clones share nothing with it and are frozen where it is.

    `clone_model` returns a plain functional model where the class has its own constructor, as
    Keras does for any such class; `copy.deepcopy` returns one of the same class.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> "Copied":
        model = super().__new__(cls, *args, **kwargs)
        in_keras = model.quantize  # which chooses a config before it calls `quantize` of the class

        @wraps(in_keras)
        def quantize(mode: str | None = None, config: Any = None, **others: Any) -> None:
            in_keras(mode, of_weights_alone(mode, config), **others)

        model.quantize = quantize
        return model

    def save(self, filepath: Any, overwrite: bool = True, **kwargs: Any) -> None:
        """Save the model as a `.keras` file, as Keras does.

        Args:
            filepath: Path of the file.
            overwrite: Whether an existing file is replaced.
            **kwargs: Further arguments of Keras's `save`.

        Raises:
            ValueError: The file is an `.h5`, which cannot be loaded again.
        """
        if str(filepath).endswith((".h5", ".hdf5")):
            raise ValueError(
                f"filepath must end in .keras, received {str(filepath)!r}: Keras cannot rebuild "
                f"{self.name} from an .h5 file. For the weights alone call save_weights with a "
                f"name that ends in .weights.h5."
            )
        super().save(filepath, overwrite=overwrite, **kwargs)

    @property
    def quantization_mode(self) -> None:
        """None, under an int8 policy too: layers are quantized, and the model runs them."""
        return None

    def quantize(
        self, mode: str | None = None, config: Any = None, filters: Any = None, **kwargs: Any
    ) -> None:
        """Quantize the weights, as Keras's `quantize` does, in layers that Keras can quantize.

        Args:
            mode: "int8", "int4", "float8" and so on, see `keras.Model.quantize`.
            config: A `keras.quantizers.QuantizationConfig`, or None. With "int8" and None only
                weights are rounded, with `keras.quantizers.Int8QuantizationConfig()` the inputs of
                layers, too, which is Keras's own default.
            filters: Regular expression, a list of them, or a function from a layer to a bool: the
                layers that are quantized. None for all.
            **kwargs: Further arguments of Keras's `quantize`.

        Warns:
            UserWarning: Layers with adapters keep their weights; says how many.
        """
        quantize_layers(self, super().quantize, mode, config, filters, **kwargs)

    def run_graph(self, run: Any, inputs: Any, operation_fn: Any, call_fn: Any) -> Any:
        copies, again = {}, self.in_training

        def noted(operation: keras.Operation) -> Any:
            call = operation_fn(operation)
            if isinstance(call, keras.Layer):  # the model is not called, but cloned
                copies[id(operation)] = operation, call
                if call is not operation and hasattr(call, "borrow"):
                    call.borrow(self._copy_of_lender(operation, copies))
            elif again and is_marked(operation) and call != operation.compute_output_spec:
                return rematerialised(operation, call)
            return call

        outputs = super().run_graph(run, inputs, noted, call_fn)
        for operation, copy in copies.values():
            if copy is not operation:
                _complete(copy, operation)
        return outputs

    def _copy_of_lender(
        self, layer: keras.Layer, copies: Mapping[int, tuple[keras.Layer, keras.Layer]]
    ) -> keras.Layer:
        if id(layer.lender) not in copies:
            raise lost(layer.name, layer.lender.name, self.name)
        return copies[id(layer.lender)][1]


def lost(borrower: str, lender: str, model: str) -> ValueError:
    """Return the error for a copy that holds a layer without the one whose table it reads.

    Args:
        borrower: Name of the layer.
        lender: Name of the layer whose table it reads.
        model: Name of the model that is copied.
    """
    return ValueError(
        f"{borrower} reads the table of the layer {lender!r}, which {model} does not hold, so that "
        f"a copy would have none: copy the model that holds both, for example backbone.masked_lm."
    )


def _complete(copy: keras.Layer, layer: keras.Layer) -> None:
    """Give a clone the adapters and the frozen parts of a layer."""
    pairs = list(zip(sublayers_of(layer), sublayers_of(copy), strict=False))
    same_count = len(sublayers_of(layer)) == len(sublayers_of(copy))
    if not same_count or not all(_same_class(*pair) for pair in pairs):
        return  # a `clone_function` made another layer of it
    for theirs, ours in pairs:
        if _adapters(theirs) and not _adapters(ours):
            _adapt(ours, theirs.get_config(), type(theirs))
    restore_quantized(
        {str(i): ours for i, (_, ours) in enumerate(pairs)},
        quantized({str(i): theirs for i, (theirs, _) in enumerate(pairs)}),
    )
    for theirs, ours in pairs[1:]:
        ours.name = theirs.name
    mark(copy, is_marked(layer))
    if copy.trainable != layer.trainable:
        return  # a `clone_function` has frozen or unfrozen it
    for theirs, ours in pairs:
        ours.trainable = theirs.trainable
    for theirs, ours in pairs:
        both = zip(own_trainable_weights(theirs), own_trainable_weights(ours), strict=True)
        for original, variable in both:
            variable.trainable = original.trainable
            variable._kft_marked = getattr(original, "_kft_marked", None)  # who has marked it


def _same_class(one: keras.Layer, other: keras.Layer) -> bool:
    """Whether two layers are of one class, with or without adapters."""
    classes = [getattr(layer, "base_class", type(layer)) for layer in (one, other)]
    return classes[0] is classes[1] and one.built == other.built


# In configs ---------------------------------------------------------------------------------------


FLAGS = (
    "frozen_layers",
    "frozen_weights",
    "inner_names",
    "marked_by_kft",
    "quantized",
    "rematerialised",
    "revision",
)


def flags(model: keras.Model) -> dict[str, Any]:
    """Return the part of a config that lists frozen, quantized and marked layers, and the revision.

    Args:
        model: A built model.

    Returns:
        {"frozen_layers": paths, "" for the model itself; "frozen_weights": paths of weights that
        are frozen in layers which are not}, each if there are any; {"marked_by_kft": True} if
        none of these was frozen by hand; {"quantized": {path: how}} of layers, also those of heads
        that were published with the model and exist; {"rematerialised": names} of layers of the
        graph, see `rematerialised`; {"revision": commit} of a downloaded backbone.
    """
    everything = {"": model, **layers(model)}
    weights_alone = [
        weight.path
        for weight in weights(model)
        if weight.layer.trainable and not _adapters(weight.layer) and _is_frozen_alone(weight)
    ]
    frozen = [path for path, layer in everything.items() if not layer.trainable]
    paths = {"frozen_layers": frozen, "frozen_weights": weights_alone}
    config: dict[str, Any] = {key: some for key, some in paths.items() if some}
    if config and not any(user_marks(model).values()):
        config["marked_by_kft"] = True
    heads = [x for x in vars(model).values() if isinstance(x, Copied) and x is not model]
    in_heads = {path: layer for head in heads for path, layer in layers(head).items()}
    if rounded := quantized({**in_heads, **everything}):
        config["quantized"] = rounded
    if again := [layer.name for layer in model.layers if is_marked(layer)]:
        config["rematerialised"] = again
    if revision := getattr(model, "revision", None):
        config["revision"] = revision
    return config


def _is_frozen_alone(weight: Weight) -> bool:
    gradient = {id(v) for v in own_trainable_weights(weight.layer)}
    return id(weight.variable) in gradient and not weight.variable.trainable


def _adapters(layer: keras.Layer) -> Any:
    return getattr(layer, "adapters", None)


def names_of(model: keras.Model) -> dict[str, list[str]]:
    """Return {"inner_names": names of the layers inside of those of the graph}, for a config.

    Keras numbers the names that it makes up, and a few layers of keras-hub add to theirs whenever
    they are rebuilt.

    Args:
        model: A built model.
    """
    return {"inner_names": [layer.name for layer in _inside(model)]}


def _inside(model: keras.Model) -> list[keras.Layer]:
    in_graph = {id(layer) for layer in model.layers}
    return [x for x in sublayers_of(model, include_self=False) if id(x) not in in_graph]


def without_flags(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config as a constructor takes it."""
    return {key: value for key, value in config.items() if key not in FLAGS}


def marked(model: keras.Model, config: Mapping[str, Any]) -> keras.Model:
    """Freeze and quantize in a rebuilt model what `flags` found in the one of the config.

    Args:
        model: A model of the same architecture.
        config: Config with what `flags`, and perhaps `names_of`, has found.

    Returns:
        The model.

    Raises:
        ValueError: A layer or weight that is frozen in the config is not in the model.
    """
    if "revision" in config:
        model.revision = config["revision"]
    for name in config.get("rematerialised", ()):
        mark(model.get_layer(name))
    names, inside = config.get("inner_names", ()), _inside(model)
    for name, layer in zip(names, inside, strict=False) if len(names) == len(inside) else ():
        layer.name = name
    if "quantized" in config:
        restore_quantized({**_in_heads(model), **layers(model)}, config["quantized"])
    frozen, weights_alone = (set(config.get(key, ())) for key in FLAGS[:2])
    if not frozen | weights_alone:
        return model
    everything = {"": model, **layers(model)}
    # The layer position_mask was called residue_mask in earlier files.
    frozen = {
        path if path in everything else path.replace("residue_mask", "position_mask")
        for path in frozen
    }
    owned = {weight.path: weight.variable for weight in weights(model)}
    unknown = [*sorted(frozen - everything.keys()), *sorted(weights_alone - owned.keys())]
    if unknown:
        raise ValueError(
            f"The config of {model.name} freezes {listed(unknown, 3)}, {len(unknown)} in total, "
            f"which the model rebuilt from it does not have: it was written by another version of "
            f"kft, Keras or keras-hub. Build the model again and call load_weights."
        )
    # Each layer comes before the layers inside it, whose flags it also sets. The order of paths is
    # not enough: a pooling layer is in the graph and in the head.
    outermost_first = sorted(everything.items(), key=lambda item: -len(sublayers_of(item[1])))
    for path, layer in outermost_first:
        layer.trainable = path not in frozen
    for path in weights_alone:
        owned[path].trainable = False
    if config.get("marked_by_kft"):
        record_marks(model)
    return model


def _in_heads(model: keras.Model) -> dict[str, keras.Layer]:
    """Return {path: layer} of the heads that were published with a model."""
    heads = contract.published_heads(model)
    return {f"{head.name}/{path}": x for head in heads for path, x in layers(head).items()} | {
        head.name: head for head in heads
    }


def adapters_of(by_path: Mapping[str, keras.Layer]) -> dict[str, dict]:
    """Return {path: config} of the layers that hold adapters.

    Args:
        by_path: {path: layer}; `restore` is given the same paths.
    """
    adapted = {path: layer for path, layer in by_path.items() if _adapters(layer)}
    configs = {path: keras.saving.serialize_keras_object(layer) for path, layer in adapted.items()}
    for config in configs.values():
        config.pop("build_config", None)
    return configs


def restore(by_path: Mapping[str, keras.Layer], configs: Mapping[str, dict]) -> None:
    """Give layers the adapters that `adapters_of` found in a model of the same architecture.

    The classes come from Keras's registry, since `kft.backbones` does not import `kft.lora`.

    Args:
        by_path: {path: layer}.
        configs: {path: config}, as `adapters_of` returns them.
    """
    for path, config in configs.items():
        if not _adapters(by_path[path]):
            kind = keras.saving.get_registered_object(config["registered_name"])
            _adapt(by_path[path], config["config"], kind)


def _adapt(layer: keras.Layer, config: Mapping[str, Any], kind: Any) -> None:
    adapters = kind.attach(layer)
    adapters.restore_adapters(config["adapters"], config["active"], config["merged"])
