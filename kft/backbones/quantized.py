"""Models with quantized weights: which layers are quantized, in configs and by a dtype policy.

Keras writes how a layer is quantized into the config of that layer. The config of a layer that is
made of others, such as a block of a transformer, does not hold the configs of its parts, so the
config of the whole model lists them.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras

from kft.keras_internals import (
    is_quantized,
    passes_filters,
    sublayers_of,
    take_own_policy,
)
from kft.messages import listed, shown

_CALIBRATED = ("gptq", "awq")  # modes that need data


def of_weights_alone(mode: str | None, config: Any) -> Any:
    """Return the config to quantize with: for "int8" without one, weights are rounded alone.

    Keras's own default also rounds the inputs of layers, which costs accuracy and time.

    Args:
        mode: Mode, such as "int8".
        config: A `keras.quantizers.QuantizationConfig`, or None.

    Example:
        >>> of_weights_alone("int8", None).activation_quantizer
    """
    if mode == "int8" and config is None:
        return keras.quantizers.Int8QuantizationConfig(activation_quantizer=None)
    return config


def quantize_layers(
    model: keras.Model,
    quantize: Callable[..., None],
    mode: str | None,
    config: Any,
    filters: Any,
    **kwargs: Any,
) -> None:
    """Run Keras's `quantize` on those layers that it can quantize.

    These are `Dense`, `EinsumDense` and `Embedding`, no subclasses of them and no convolutions.

    Args:
        model: A built model.
        quantize: Keras's method of the model.
        mode: Mode, such as "int8".
        config: A `keras.quantizers.QuantizationConfig`, or None.
        filters: Which layers, see `keras.Model.quantize`.
        **kwargs: Further ones.

    Warns:
        UserWarning: Layers with adapters are left out; says how many.
    """
    # keras-hub's MBConvBlock holds convolutions that it never calls, for which Keras raises.
    wanted = [x for x in sublayers_of(model) if x.built and passes_filters(x, filters)]
    ids = {id(layer) for layer in wanted}
    for layer in wanted:
        if layer.path:
            take_own_policy(layer)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*does not have a `quantize` method")
        quantize(mode, config=config, filters=lambda layer: id(layer) in ids, **kwargs)
    _warn_of_adapted(model, wanted)


def _warn_of_adapted(model: keras.Model, layers: Iterable[keras.Layer]) -> None:
    names = sorted(layer.path for layer in layers if getattr(layer, "adapters", None))
    if names:
        warnings.warn(
            f"{len(names)} layers of {model.name} hold adapters and keep their weights as they are "
            f"({listed(names, 3)}): to quantize them too, call kft.merge_lora and kft.lora.remove "
            f"first.",
            stacklevel=5,
        )


# In configs ---------------------------------------------------------------------------------------


def quantized(by_path: Mapping[str, keras.Layer]) -> dict[str, dict]:
    """Return {path: how} of the layers that are quantized.

    Args:
        by_path: {path: layer}; `restore_quantized` is given the same paths.
    """
    return {
        path: {
            "mode": layer.quantization_mode,
            "config": keras.saving.serialize_keras_object(
                getattr(layer, "quantization_config", None)
            ),
        }
        for path, layer in by_path.items()
        if is_quantized(layer)
    }


def restore_quantized(by_path: Mapping[str, keras.Layer], how: Mapping[str, dict]) -> None:
    """Quantize the layers that `quantized` found in a model of the same architecture.

    Args:
        by_path: {path: layer}.
        how: {path: how}, as `quantized` returns it.

    Raises:
        ValueError: A layer is not in the model.
    """
    if unknown := [path for path in how if path not in by_path]:
        raise ValueError(
            f"The config has {listed(unknown, 3)} quantized, {len(unknown)} in total, which the "
            f"model rebuilt from it does not have: it was written by another version of kft, Keras "
            f"or keras-hub."
        )
    for path, one in how.items():
        if not is_quantized(by_path[path]):
            config = keras.saving.deserialize_keras_object(one["config"])
            take_own_policy(by_path[path])
            # Keras quantizes no subclasses, such as layers with adapters.
            by_path[path].quantize(one["mode"], type_check=False, config=config)


# By a dtype policy --------------------------------------------------------------------------------


def dtype_of(dtype: Any) -> tuple[Any, Any]:
    """Return a dtype for the layers of a backbone before quantization, and for its config.

    Args:
        dtype: A dtype, the name of a Keras policy, a policy, a `DTypePolicyMap` by the paths of
            layers, or the config of one; None for Keras's current policy.

    Returns:
        The name of the policy, twice; for a map, the map and its config.

    Example:
        >>> dtype_of("mixed_bfloat16")
        ('mixed_bfloat16', 'mixed_bfloat16')
    """
    policy = keras.dtype_policies.get(without_quantization(dtype))
    if isinstance(policy, keras.dtype_policies.DTypePolicyMap):
        return policy, keras.dtype_policies.serialize(policy)
    return policy.name, policy.name


def without_quantization(dtype: Any) -> Any:
    """Return a dtype policy as it is before quantization; what has none is returned unchanged.

    Args:
        dtype: As for `dtype_of`.

    Raises:
        ValueError: No dtype policy, or a mode that needs data, such as "gptq".

    Example:
        >>> without_quantization("int8_from_float32")
        'float32'
    """
    try:
        policy = keras.dtype_policies.get(dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"dtype must be a Keras dtype policy, received {shown(dtype)}: {error}"
        ) from None
    if not isinstance(policy, keras.dtype_policies.DTypePolicyMap):
        return _source(policy).name if policy.quantization_mode else dtype
    sources = {path: _source(one) for path, one in policy.items()}
    return keras.dtype_policies.DTypePolicyMap(_source(policy.default_policy), sources)


def _source(policy: Any) -> Any:
    if policy.quantization_mode in _CALIBRATED:
        raise ValueError(
            f"dtype {policy.name!r} needs data to quantize with: load the model without it, then "
            f"call its quantize."
        )
    if not policy.quantization_mode:
        return policy
    return keras.dtype_policies.DTypePolicy(policy.get_config()["source_name"])


def quantize_as(model: keras.Model, dtype: Any) -> None:
    """Quantize the layers of a model as a dtype policy says, once it has its weights.

    Args:
        model: A built model whose layers have the policy that `without_quantization` returns.
        dtype: As for `dtype_of`.
    """
    policy = keras.dtype_policies.get(dtype)
    is_map = isinstance(policy, keras.dtype_policies.DTypePolicyMap)
    by_policy: dict[str, tuple[Any, set[int]]] = {}
    for layer in sublayers_of(model):
        if not layer.built or not layer.path:
            continue
        one = policy[layer.path] if is_map else policy
        if one.quantization_mode:
            by_policy.setdefault(one.name, (one, set()))[1].add(id(layer))
    for one, ids in by_policy.values():
        config = None
        if hasattr(one, "block_size"):
            config = keras.quantizers.Int4QuantizationConfig(block_size=one.block_size)
        model.quantize(
            one.quantization_mode, config=config, filters=lambda layer, ids=ids: id(layer) in ids
        )
