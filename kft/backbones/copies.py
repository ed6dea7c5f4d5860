"""Copies of a model: what Keras's own ways to copy one leave behind.

Keras copies a layer by its config. The config of a layer that is made of others, such as a block of
a transformer, tells neither which of them are frozen nor which hold adapters; and one layer here
borrows the table of another. `Copied` sees to that in `keras.models.clone_model`, and `flags` with
`marked` in the config of a whole model, by which `copy.deepcopy`, `pickle` and files rebuild it.
"""

import keras

from kft.params import by_hand, layers, sign, weights


class Copied(keras.Model):
    """A functional model whose clones share nothing with it and learn where it does.

    `clone_model` answers with a plain functional model where the class has a constructor of its
    own, as Keras does for any such class; `copy.deepcopy` gives one of the same class.
    """

    def _run_through_graph(self, inputs, operation_fn=lambda op: op, call_fn=None):
        made = {}

        def noted(operation):
            call = operation_fn(operation)
            if isinstance(call, keras.Layer):  # no call of this model: it is cloned
                made[id(operation)] = operation, call
                if call is not operation and hasattr(call, "borrow"):
                    call.borrow(self._copy_of_lender(operation, made))
            return call

        outputs = super()._run_through_graph(inputs, noted, call_fn)
        for operation, copy in made.values():
            if copy is not operation:
                _equip(copy, operation)
        return outputs

    def _copy_of_lender(self, layer, made):
        if id(layer.lender) not in made:
            raise lost(layer.name, layer.lender.name, self.name)
        return made[id(layer.lender)][1]


def lost(borrower, lender, model):
    """The error of a copy that holds a layer without the one whose table it reads."""
    return ValueError(
        f"{borrower} reads the table of the layer {lender!r}, which {model} does not hold, so that "
        f"a copy would have none: copy the model that holds both, for example backbone.masked_lm."
    )


def _equip(copy, layer):
    """Gives a clone the adapters and the marks of all that is inside of a layer."""
    pairs = list(zip(_all(layer), _all(copy), strict=False))
    if len(_all(layer)) != len(_all(copy)) or not all(_alike(*pair) for pair in pairs):
        return  # a `clone_function` made another layer of it
    for theirs, ours in pairs:
        if _adapters(theirs) and not _adapters(ours):
            _adapt(ours, theirs.get_config(), type(theirs))
    for theirs, ours in pairs[1:]:
        ours.name = theirs.name
    if copy.trainable != layer.trainable:
        return  # a `clone_function` has marked it
    for theirs, ours in pairs:
        ours.trainable = theirs.trainable
    for theirs, ours in pairs:
        for v, w in zip(theirs._trainable_variables, ours._trainable_variables, strict=True):
            w.trainable = v.trainable
            w._kft_marked = getattr(v, "_kft_marked", None)  # who has marked it


def _all(layer):
    return layer._flatten_layers()


def _alike(one, other):
    """Whether two layers are of one kind, adapters aside."""
    kinds = [getattr(layer, "base_class", type(layer)) for layer in (one, other)]
    return kinds[0] is kinds[1] and one.built == other.built


# In configs ---------------------------------------------------------------------------------------


FLAGS = ("frozen_layers", "frozen_weights", "inner_names", "marked_by_kft")


def flags(model):
    """What a config has to tell of which layers and weights do not learn; {} if all do.

    Returns:
        {"frozen_layers": paths, "" for the model itself; "frozen_weights": paths of weights that
        sleep in layers which do not}, each if there are any; {"marked_by_kft": True} if none of
        these was marked by hand.
    """
    everything = {"": model, **layers(model)}
    asleep = [
        weight.path
        for weight in weights(model)
        if weight.layer.trainable and not _adapters(weight.layer) and _sleeps(weight)
    ]
    frozen = [path for path, layer in everything.items() if not layer.trainable]
    found = {"frozen_layers": frozen, "frozen_weights": asleep}
    found = {key: paths for key, paths in found.items() if paths}
    if found and not any(by_hand(model).values()):
        found["marked_by_kft"] = True
    return found


def _sleeps(weight):
    gradient = {id(v) for v in weight.layer._trainable_variables}
    return id(weight.variable) in gradient and not weight.variable.trainable


def _adapters(layer):
    return getattr(layer, "adapters", None)


def names_of(model):
    """{"inner_names": names of the layers inside of those of the graph}, for a config.

    Keras counts the names that it makes up, and a few layers of keras-hub add to theirs whenever
    they are rebuilt.
    """
    return {"inner_names": [layer.name for layer in _inside(model)]}


def _inside(model):
    own = {id(layer) for layer in model.layers}
    return [x for x in model._flatten_layers(include_self=False) if id(x) not in own]


def without_flags(config):
    """A config as a constructor takes it."""
    return {key: value for key, value in config.items() if key not in FLAGS}


def marked(model, config):
    """Freezes in a rebuilt model what `flags` found in the one that the config is of.

    Args:
        model: of the same architecture.
        config: dict with what `flags`, and perhaps `names_of`, has found.

    Returns:
        The model.

    Raises:
        ValueError: a layer or weight that is frozen in the config is not in the model.
    """
    names, inside = config.get("inner_names", ()), _inside(model)
    for name, layer in zip(names, inside, strict=False) if len(names) == len(inside) else ():
        layer.name = name
    frozen, asleep = (set(config.get(key, ())) for key in FLAGS[:2])
    if not frozen | asleep:
        return model
    everything = {"": model, **layers(model)}
    owned = {weight.path: weight.variable for weight in weights(model)}
    if unknown := [*sorted(frozen - everything.keys()), *sorted(asleep - owned.keys())]:
        raise ValueError(
            f"The config of {model.name} says that {', '.join(unknown[:3])} and {len(unknown)} in "
            f"all do not learn, which the model rebuilt from it does not have: it was written by "
            f"another version of kft, Keras or keras-hub. Build the model anew and load_weights."
        )
    # Each layer comes before those inside of it, to which it hands its flag down.
    for path, layer in everything.items():
        layer.trainable = path not in frozen
    for path in asleep:
        owned[path].trainable = False
    if config.get("marked_by_kft"):
        sign(model)
    return model


def adapters_of(by_path):
    """{path: config} of the layers that hold adapters.

    Args:
        by_path: dict from path to layer; `restore` is given the same paths.
    """
    found = {path: layer for path, layer in by_path.items() if _adapters(layer)}
    configs = {path: keras.saving.serialize_keras_object(layer) for path, layer in found.items()}
    for config in configs.values():
        config.pop("build_config", None)
    return configs


def restore(by_path, configs):
    """Gives layers the adapters that `adapters_of` found in a model of the same architecture.

    The classes come from Keras's registry: the rooms of `backbones` do not know `lora`.
    """
    for path, config in configs.items():
        if not _adapters(by_path[path]):
            kind = keras.saving.get_registered_object(config["registered_name"])
            _adapt(by_path[path], config["config"], kind)


def _adapt(layer, told, kind):
    kind.take_over(layer).resume(told["adapters"], told["active"], told["merged"])
