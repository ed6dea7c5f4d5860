"""Export: a model as a file that other programs run without Keras.

On JAX and TensorFlow Keras writes TensorFlow's SavedModel. On PyTorch it cannot, and its own ONNX
export fixes the number of tokens; here PyTorch's exporter is called with open sizes.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from pathlib import Path
from typing import Any

import keras

from kft.native_logs import without_native_logs

# ONNX files end at 2 GB; weights of larger models are written to a second file.
MOST_BYTES = 1_900_000_000
_CONVERTERS = {"jax": "jax2onnx", "tensorflow": "tf2onnx"}


def export(
    model: keras.Model,
    filepath: str | os.PathLike[str],
    format: str = "tf_saved_model",
    verbose: bool | None = None,
    input_signature: Any = None,
    **kwargs: Any,
) -> None:
    """Write a model as a file or folder that runs without Keras and without kft.

    It takes what `model.encode` returns, in batches of any size and length, and computes what the
    model computes, with its active adapters. `kft.merge_lora(model)` before makes it as fast as a
    model without adapters.

    Args:
        model: A `kft.Model`, a backbone, or any functional Keras model.
        filepath: Folder of a SavedModel, or name of an ONNX file.
        format: "tf_saved_model" on JAX and TensorFlow; "onnx" on PyTorch, which needs
            `pip install "kft[onnx]"`; or another one of Keras's `model.export`.
        verbose: False prints nothing.
        input_signature: As for Keras's `model.export`, which is called where it is given.
        **kwargs: As for Keras's `model.export`, such as `opset_version` for ONNX.

    Raises:
        ValueError: The backend cannot write the format; the message states what to do.
        ImportError: A package is missing.

    Example:
        >>> import kft
        >>> model = kft.Model(kft.load("kft_esm2_tiny"), kft.heads.Regression())
        >>> export(model, "model.onnx", format="onnx")  # doctest: +SKIP
    """
    backend = keras.backend.backend()
    if format == "tf_saved_model":
        _check_saved_model(backend)
    if format == "onnx" and input_signature is None:
        if backend == "torch":
            _export_onnx(model, Path(filepath), verbose, **kwargs)
            return
        _check_converter(backend)
    # Not `model.export`, which calls this function where the model is one of kft.
    keras.Model.export(model, filepath, format, verbose, input_signature, **kwargs)


def _check_saved_model(backend: str) -> None:
    if backend == "torch":
        raise ValueError(
            "format must be 'onnx' on the PyTorch backend, received 'tf_saved_model', which Keras "
            "cannot write there: use model.export('model.onnx', format='onnx'); or save the model "
            "as a .keras file, load it with KERAS_BACKEND=jax or tensorflow, and export it there."
        )
    if importlib.util.find_spec("tensorflow") is None:
        raise ImportError(
            'A SavedModel is written with TensorFlow: pip install "kft[tensorflow]" (the model '
            "still runs on JAX)."
        )
    with without_native_logs():
        importlib.import_module("tensorflow")


def _check_converter(backend: str) -> None:
    converter = _CONVERTERS[backend]
    if importlib.util.find_spec(converter) is None:
        raise ImportError(
            f"On {backend} Keras writes ONNX with {converter}, which is not installed. Without it: "
            f"save the model as a .keras file, load it with KERAS_BACKEND=torch and export it "
            f"there; or use format='tf_saved_model'."
        )


def _export_onnx(
    model: keras.Model, path: Path, verbose: bool | None, opset_version: int | None = None
) -> None:
    """Write an ONNX file with open sizes where the inputs of the model have them."""
    import torch

    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f'ONNX needs {" and ".join(missing)}: pip install "kft[onnx]".')
    inputs = keras.tree.flatten(model.input)

    class Flat(torch.nn.Module):
        """The model with one argument for each input."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: Any) -> Any:
            return model(keras.tree.pack_sequence_as(model.input, tensors), training=False)

    # Sizes of 1 would be taken for fixed ones.
    examples = [keras.ops.ones([n or 4 for n in x.shape], dtype=x.dtype) for x in inputs]
    is_open = torch.export.Dim.DYNAMIC
    shapes = tuple({i: is_open for i, n in enumerate(x.shape) if n is None} for x in inputs)
    large = 4 * model.count_params() > MOST_BYTES
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch, on its own code
        program = torch.onnx.export(
            Flat(),
            tuple(examples),
            dynamo=True,
            dynamic_shapes={"tensors": shapes},
            input_names=[x.name for x in inputs],
            output_names=["outputs"] if len(model.outputs) == 1 else None,
            opset_version=opset_version,
            verbose=False,
        )
    program.save(path, external_data=large)
    if verbose is not False:
        print(f"Saved artifact at '{path}'.")
