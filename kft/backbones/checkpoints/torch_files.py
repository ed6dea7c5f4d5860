"""Torch checkpoint files read as numpy arrays, without torch and without running what they carry.

A `.pt` or `.bin` file is a pickle, and a pickle is a program. Here that program is not given to
Python's unpickler: its opcodes are decoded by `pickletools` and the few that make tensors and
plain data are carried out by `_run`. What is not in the tables below does not exist, so there is
nothing to escape from: no import, no `__setstate__`, no extension registry, no attribute set.

Two layouts exist. The zip layout (torch >= 1.6) keeps one uncompressed record per storage, which
is mapped, not read. The legacy layout is four pickles followed by the raw storages.

Reference: `torch/serialization.py` (`_load`, `_legacy_load`) and `torch/_utils.py`
(`_rebuild_tensor_v2`) of PyTorch 2.13.

Differences from the reference: plain tensors of the types in `_DTYPES` only (no sparse, quantized
or float8 tensors), and `argparse.Namespace` comes back as a dict of its attributes.
"""

import io
import math
import mmap
import pickletools
import re
import reprlib
import struct
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

_ZIP_START = b"PK\x03\x04"
_LEGACY_MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  # after the pickle's header

# A tensor may repeat its storage (`expand`), so that a small file could name a petabyte.
_MAX_EXPANDED = 2**26

# A pickle has about fifty opcodes for each tensor. Decoding takes microseconds for each.
_MAX_OPCODES = 400_000


_SHORT = reprlib.Repr()  # a shape may be a tuple of tuples, nested as deep as the file likes
_SHORT.maxlevel = 2


class CheckpointError(ValueError):
    """A checkpoint file that cannot be used: damaged, of another kind, or carrying code."""


def read_torch(path: str | Path) -> Any:
    """Read what `torch.save` wrote, as plain Python data with numpy arrays for tensors.

    Args:
        path: A `.pt`, `.pth` or `.bin` file, in the zip or the legacy layout.

    Returns:
        The saved object. Tensors and parameters are `np.ndarray` of the stored type (bfloat16 is
        `ml_dtypes.bfloat16`). They share memory where the tensors did; those of a zip file are
        read-only views of the mapped file, so that nothing is read before it is used.
        An `argparse.Namespace` is a dict of its attributes; torch types are `np.dtype`.

    Raises:
        OSError: The file cannot be opened.
        CheckpointError: The file is not a torch file, is damaged or truncated, is a TorchScript
            archive, or carries code. Nothing in the file has been run.

    Source: `torch.load(path, weights_only=True)`.

    Example:
        >>> checkpoint = read_torch("esm2_t6_8M_UR50D.pt")  # doctest: +SKIP
        >>> checkpoint["cfg"]["model"]["encoder_layers"]  # doctest: +SKIP
        6
    """
    if Path(path).exists() and not Path(path).is_file():  # a pipe would be waited for
        raise CheckpointError(f"{path}: not a file, but a folder, a pipe or a device")
    with open(path, "rb") as file:
        try:
            return _read(file)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None
        except Exception as error:  # damaged bytes can break the decoding in any way
            raise CheckpointError(
                f"{path}: damaged or truncated torch file ({type(error).__name__}: {error}). "
                "Download or copy it again."
            ) from error


def describe(start: bytes) -> str:
    """Name the kind of a file that begins with these bytes, for error messages.

    Args:
        start: The first bytes of the file (64 are enough).

    Returns:
        A sentence without a final stop.
    """
    kinds = {
        b"version https://git-lfs": "it is a Git LFS pointer; get the weights with `git lfs pull`",
        b"<": "it is a web page, saved in place of the weights; download it again",
        _ZIP_START: "it is a zip archive, such as torch and Keras write",
        b"\x89HDF": "it is an HDF5 file",
        b"\x80": "it is a pickle (as old torch files are), and was not run",
    }
    if not start:
        return "it is empty; download or copy it again"
    for signature, kind in kinds.items():
        if start.lstrip().startswith(signature):
            return kind
    return f"it begins with {start[:16]!r}"


# --------------------------------------------------------------------------------- containers


def _read(file: BinaryIO) -> Any:
    start = file.read(64)
    is_zip = start.startswith(_ZIP_START)
    if not is_zip and _LEGACY_MAGIC not in start:
        raise CheckpointError(f"not a torch file: {describe(start)}")
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return _read_zip(file, mapped) if is_zip else _read_legacy(mapped)


def _read_zip(file: BinaryIO, mapped: mmap.mmap) -> Any:
    """Read the zip layout: NAME/data.pkl holds the object, NAME/data/KEY the storages."""
    records = _records(file, mapped)
    pickles = [name for name in records if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CheckpointError("not a torch file: it is a zip archive without a data.pkl record")
    folder = pickles[0].removesuffix("data.pkl")

    def content(record: str) -> bytes:
        start, size = records[folder + record]
        return mapped[start : start + size]

    if f"{folder}byteorder" in records and content("byteorder") != b"little":
        raise CheckpointError(
            "written on a big-endian machine, which is not supported. "
            "Load it there and save it with safetensors."
        )

    def storage(key: str, dtype: np.dtype, count: int) -> np.ndarray:
        nbytes = count * dtype.itemsize
        start, size = records[f"{folder}data/{key}"]
        if nbytes > size:
            raise CheckpointError(f"truncated: storage {key} has {size} of {nbytes} bytes")
        return np.frombuffer(mapped, np.uint8, nbytes, start)

    return _run(io.BytesIO(content("data.pkl")), storage)


def _records(file: BinaryIO, mapped: mmap.mmap) -> dict[str, tuple[int, int]]:
    """Find where the bytes of each record of a zip archive start, and how many there are."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    if any(e.filename.endswith("/constants.pkl") or "/code/" in e.filename for e in entries):
        raise CheckpointError(
            "a TorchScript archive (torch.jit.save), which carries code and was not run. "
            "Load it with torch.jit.load and save its state_dict() with torch.save or safetensors."
        )
    records = {}
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise CheckpointError(
                f"not a torch file: record {entry.filename!r} is compressed or encrypted, "
                "and torch writes plain records"
            )
        # The names' lengths in the local header may differ from those in the directory.
        name_size, extra_size = struct.unpack_from("<HH", mapped, entry.header_offset + 26)
        records[entry.filename] = (
            entry.header_offset + 30 + name_size + extra_size,
            entry.file_size,
        )
    return records


def _read_legacy(mapped: mmap.mmap) -> Any:
    """Read the legacy layout: magic, version, system, object, storage keys, then the storages.

    The object comes before the storages that it views, so it is built on memory filled afterwards.
    """
    for _ in ("magic number", "protocol version", "system"):
        _run(mapped)  # the raw storages are little-endian on every system
    storages: dict[str, np.ndarray] = {}
    unclaimed = len(mapped)

    def storage(key: str, dtype: np.dtype, count: int) -> np.ndarray:
        nonlocal unclaimed
        if key not in storages:
            unclaimed -= count * dtype.itemsize
            if unclaimed < 0:  # checked before memory is asked for
                raise CheckpointError("truncated: its tensors are larger than the file")
            storages[key] = np.empty(count, dtype)
        if (storages[key].dtype, storages[key].size) != (dtype, count):
            raise CheckpointError(f"damaged: storage {key} has two types or sizes")
        return storages[key].view(np.uint8)

    result = _run(mapped, storage)
    keys = _run(mapped)
    if sorted(keys) != sorted(storages):
        raise CheckpointError("damaged: the storages are not those that its tensors use")
    for key in keys:
        (count,) = struct.unpack("<q", mapped.read(8))
        content, start = storages[key].view(np.uint8), mapped.tell()
        if count != storages[key].size:
            raise CheckpointError(f"damaged: storage {key} has two sizes")
        content[:] = np.frombuffer(mapped, np.uint8, content.size, start)
        mapped.seek(start + content.size)
    return result


# --------------------------------------------------------------- what a file may ask for by name


@dataclass(frozen=True)
class _Storage:
    """The bytes that tensors view, and the type that they are to be read as."""

    data: np.ndarray  # (bytes,) uint8
    dtype: np.dtype


def _tensor(
    storage: _Storage, offset: int, shape: tuple, strides: tuple, *options: Any
) -> np.ndarray:
    """View a storage as a tensor; offset and strides count elements, not bytes."""
    if not (
        type(shape) is type(strides) is tuple
        and len(shape) == len(strides)
        and all(type(n) is int and n >= 0 for n in (offset, *shape, *strides))
    ):
        raise CheckpointError(
            f"damaged: a tensor of shape {_SHORT.repr(shape)} has strides {_SHORT.repr(strides)}"
        )
    if len(options) > 2 and options[2]:  # requires_grad, backward_hooks, metadata
        raise CheckpointError("a conjugated or negated view, which is not a plain tensor")
    count, itemsize = math.prod(shape), storage.dtype.itemsize
    if count == 0:
        return np.empty(shape, storage.dtype)
    available = storage.data.size // itemsize
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if last >= available or count > max(available, _MAX_EXPANDED):
        raise CheckpointError(
            f"damaged: a tensor of shape {_SHORT.repr(shape)} with strides {_SHORT.repr(strides)} "
            f"at {offset} does not fit its storage of {available} elements"
        )
    # np.ndarray checks these bounds once more; as_strided would believe us.
    return np.ndarray(
        shape, storage.dtype, storage.data, offset * itemsize, [s * itemsize for s in strides]
    )


def _parameter(data: np.ndarray, *_: Any) -> np.ndarray:
    return data


def _ordered_dict(items: tuple | list = ()) -> OrderedDict:
    result: OrderedDict = OrderedDict()
    _set_items(result, [part for item in items for part in item])
    return result


def _namespace() -> dict:
    return {}


def _size(items: tuple) -> tuple:
    return items


_DTYPES = {
    "float64": "Double",
    "float32": "Float",
    "float16": "Half",
    "bfloat16": "BFloat16",
    "int64": "Long",
    "int32": "Int",
    "int16": "Short",
    "int8": "Char",
    "uint8": "Byte",
    "bool": "Bool",
}

_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("argparse", "Namespace"): _namespace,
    ("torch", "Size"): _size,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
}
for _name, _storage_name in _DTYPES.items():
    _dtype = np.dtype(getattr(ml_dtypes, _name) if _name == "bfloat16" else _name)
    _KNOWN["torch", _name] = _KNOWN["torch", f"{_storage_name}Storage"] = _dtype


def _find(module: str, name: str, stack: list) -> Any:
    if (module, name) in _KNOWN:
        return _KNOWN[module, name]
    if module in ("torch", "torch._utils") and re.search("^_rebuild_.*tensor|Storage$", name):
        # Its name in a dict, if it has one, was read just before it.
        names = [part for part in stack if isinstance(part, str) and part != "storage"]
        raise CheckpointError(
            f"{names[-1] if names else 'it'} is not a plain tensor ({module}.{name}): quantised, "
            f"sparse, complex and 8-bit float tensors are not read. Take the checkpoint that it "
            f"was made from, or load it with torch and save each tensor as .dequantize(), "
            f".to_dense() or .float()."
        )
    raise _carries_code(f"{module}.{name}")


def _carries_code(what: str) -> CheckpointError:
    return CheckpointError(
        f"this file carries code ({what}) and was not run: only tensors and plain data are read. "
        "If you trust where it came from, load it with torch and save model.state_dict() alone, "
        "with torch.save or safetensors."
    )


# --------------------------------------------------------------------- the opcodes of a pickle

_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
_MARK = object()
_StorageReader = Callable[[str, np.dtype, int], np.ndarray]


def _no_storage(key: str, dtype: np.dtype, count: int) -> np.ndarray:
    raise CheckpointError("damaged: a tensor where there can be none")


def _run(stream: Any, storage: _StorageReader = _no_storage) -> Any:
    """Carry out one pickle as far as it makes tensors and plain data.

    Args:
        stream: A binary file at the start of a pickle; left after its end.
        storage: Gives the bytes of the storage with this key, type and number of elements.

    Returns:
        The object.

    Raises:
        CheckpointError: At the first opcode or name that is not in the tables of this module.
    """
    stack: list = []
    memo: dict[Any, Any] = {}  # by number
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if count == _MAX_OPCODES:
            raise CheckpointError(
                f"its pickle has more than {_MAX_OPCODES:,} instructions, and a checkpoint about "
                f"fifty for each tensor. Save model.state_dict() alone, or use safetensors."
            )
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case name if name in _LITERALS:
                stack.append(argument)
            case name if name in _CONSTANTS:
                stack.append(_CONSTANTS[name]())
            case "MARK":
                stack.append(_MARK)
            case "POP":
                stack.pop()
            case "DUP":
                stack.append(stack[-1])
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GLOBAL":
                module, _, attribute = str(argument).partition(" ")
                stack.append(_find(module, attribute, stack))
            case "BINPERSID":
                stack.append(_persistent(stack.pop(), storage))
            case name if name in _CONSTRUCTIONS:
                _CONSTRUCTIONS[name](stack)
            case name:
                raise _carries_code(f"opcode {name}")
    raise CheckpointError("truncated: its pickle has no end")


def _persistent(identifier: Any, storage: _StorageReader) -> _Storage:
    """Find the storage that a persistent id names: ("storage", type, key, device, count, ...)."""
    match identifier:
        case ("storage", np.dtype() as dtype, str(key), _, int(count), *view) if count >= 0:
            if any(part is not None for part in view):
                raise CheckpointError("a storage that is a view, as torch < 0.4 wrote them")
            return _Storage(storage(key, dtype, count), dtype)
        case ("module", *_):
            raise _carries_code("a whole torch.nn.Module")
        case _:
            raise CheckpointError("damaged: a storage is not described as torch describes them")


def _pop_mark(stack: list) -> list:
    """Take the items above the last mark, and the mark."""
    start = len(stack) - 1
    while stack[start] is not _MARK:
        start -= 1
        if start < 0:
            raise CheckpointError("damaged: its pickle closes what it did not open")
    items = stack[start + 1 :]
    del stack[start:]
    return items


def _set_items(target: Any, flat: list) -> None:
    """Fill a dict from key, value, key, value, ... ; other objects keep their item assignment."""
    if type(target) not in (dict, OrderedDict):
        raise _carries_code(f"items set on a {type(target).__name__}")
    for key, value in zip(flat[::2], flat[1::2], strict=True):
        # Hashing a deeply nested tuple overflows the C stack, so keys are single values.
        if not isinstance(key, str | bytes | int | float | None):
            raise _carries_code(f"a dict key of type {type(key).__name__}")
        target[key] = value


def _extend(target: Any, items: list) -> None:
    if type(target) is not list:
        raise _carries_code(f"items added to a {type(target).__name__}")
    target.extend(items)


def _call(stack: list) -> None:
    """REDUCE and NEWOBJ: the only functions that can be on the stack are those in `_KNOWN`."""
    arguments, function = stack.pop(), stack.pop()
    if not isinstance(function, types.FunctionType) or type(arguments) is not tuple:
        raise _carries_code(f"a call of a {type(function).__name__}")
    stack.append(function(*arguments))


def _build(stack: list) -> None:
    """BUILD: the attributes of a namespace; those of a state_dict (`_metadata`) are left out."""
    state, target = stack.pop(), stack[-1]
    if type(target) is dict and type(state) is dict:
        _set_items(target, [part for item in state.items() for part in item])
    elif type(target) is not OrderedDict:
        raise _carries_code(f"the state of a {type(target).__name__}")


def _stack_global(stack: list) -> None:
    name, module = stack.pop(), stack.pop()
    stack.append(_find(str(module), str(name), stack))


def _tuple_of(count: int) -> Callable[[list], None]:
    def build(stack: list) -> None:
        items = [stack.pop() for _ in range(count)]
        stack.append(tuple(reversed(items)))

    return build


def _dict(stack: list) -> None:
    flat = _pop_mark(stack)
    stack.append({})
    _set_items(stack[-1], flat)


def _append(stack: list) -> None:
    item = stack.pop()
    _extend(stack[-1], [item])


def _appends(stack: list) -> None:
    items = _pop_mark(stack)
    _extend(stack[-1], items)


def _setitem(stack: list) -> None:
    value, key = stack.pop(), stack.pop()
    _set_items(stack[-1], [key, value])


def _setitems(stack: list) -> None:
    flat = _pop_mark(stack)
    _set_items(stack[-1], flat)


_CONSTRUCTIONS: dict[str, Callable[[list], object]] = {
    "TUPLE": lambda stack: stack.append(tuple(_pop_mark(stack))),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "LIST": lambda stack: stack.append(_pop_mark(stack)),
    "DICT": _dict,
    "APPEND": _append,
    "APPENDS": _appends,
    "SETITEM": _setitem,
    "SETITEMS": _setitems,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _call,
    "NEWOBJ": _call,
    "BUILD": _build,
    "POP_MARK": _pop_mark,
}
