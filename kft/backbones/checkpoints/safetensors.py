"""What transformers writes: a `.safetensors` file, a folder of shards, or `pytorch_model.bin`."""

import json
import re
from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np

from kft.backbones.checkpoints.mapping import Entry, Tensors
from kft.backbones.checkpoints.torch_files import CheckpointError, describe, read_torch
from kft.files import check_file, read_json
from kft.messages import harmless, listed, shown

_LAYOUTS = (  # in order of preference
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_SAFETENSORS_TYPES = {
    "F64": np.dtype("float64"),
    "F32": np.dtype("float32"),
    "F16": np.dtype("float16"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("int64"),
    "I32": np.dtype("int32"),
    "I16": np.dtype("int16"),
    "I8": np.dtype("int8"),
    "U8": np.dtype("uint8"),
    "BOOL": np.dtype("bool"),
}
# DataParallel, torch.compile, and a model that is an attribute, as in a LightningModule.
_WRAPPERS = [re.compile(rf"^{prefix}\.") for prefix in ("module", "_orig_mod", "model")]
# Where a training script has put the state dict, next to its optimizer and the like.
_STATES = ("state_dict", "model_state_dict", "model", "module")
_MAX_HEADER = 100_000_000  # bytes; the safetensors format allows no longer one


def read_safetensors(path: str | Path, dtype: str | None = "float32") -> Tensors:
    """Open a checkpoint in the Hugging Face layout; its tensors are read when asked for.

    Args:
        path: A `.safetensors` file, or a folder with `model.safetensors` or
            `model.safetensors.index.json` and its shards. Failing these, `pytorch_model.bin` or
            `pytorch_model.bin.index.json` with its shards, read without torch.
        dtype: Type of the floating-point arrays; `None` keeps what is stored.

    Returns:
        The tensors by name. Names are those in the file.

    Raises:
        FileNotFoundError: There is no such file or folder, no weights in the folder, or a shard
            is missing.
        CheckpointError: A file is empty, truncated, damaged or of another kind, or the index
            names a tensor that its shard lacks.

    Source: `safetensors.safe_open`, and `transformers.PreTrainedModel.from_pretrained` for the
    file names and the index.

    Example:
        >>> tensors = read_safetensors("path/to/esm2_t6_8M_UR50D")  # doctest: +SKIP
        >>> tensors.shape("esm.embeddings.word_embeddings.weight")  # doctest: +SKIP
        (33, 320)
    """
    path = Path(path)
    if path.is_dir():
        path = _weights_in(path)
    entries = _shards(path) if path.suffix == ".json" else _entries(path)
    return Tensors(_without_wrappers(entries), dtype, path)


def _without_wrappers(entries: dict[str, Entry]) -> dict[str, Entry]:
    """Take from all names the prefixes of modules in which the model was wrapped in training."""
    while prefix := next((p for p in _WRAPPERS if entries and all(map(p.match, entries))), None):
        entries = {prefix.sub("", name): entry for name, entry in entries.items()}
    return entries


def _weights_in(folder: Path) -> Path:
    for name in _LAYOUTS:
        if (folder / name).exists():
            return folder / name
    present = listed(sorted(file.name for file in folder.iterdir()), 10) or "nothing"
    raise FileNotFoundError(
        f"{folder}: no weights here. Looked for {', '.join(_LAYOUTS)}; found {present}."
    )


def _shards(index: Path) -> dict[str, Entry]:
    """Open every shard that an index names."""
    try:
        shard_of = read_json(index).get("weight_map")
    except ValueError as error:
        raise CheckpointError(f"damaged index: {error}") from None
    if not isinstance(shard_of, dict) or not all(isinstance(x, str) for x in shard_of.values()):
        raise CheckpointError(
            f"{index}: damaged index, expected a weight_map of {{tensor: file}}, received "
            f"{shown(shard_of)}. Download or copy it again."
        )
    shards = sorted(set(shard_of.values()))
    if outside := [name for name in shards if not name or Path(name).name != name]:
        raise CheckpointError(f"{index}: names a shard outside its folder: {shown(outside[0])}")
    absent = [name for name in shards if not (index.parent / name).exists()]
    if absent:
        raise FileNotFoundError(
            f"{index.parent}: {len(absent)} of {len(shards)} shards missing: {listed(absent)}. "
            f"They are named in {index.name}; download or copy them again."
        )
    entries: dict[str, Entry] = {}
    for shard in shards:
        held = _entries(index.parent / shard)
        lacking = [name for name, home in shard_of.items() if home == shard and name not in held]
        if lacking:
            raise CheckpointError(
                f"{index.parent / shard}: lacks {len(lacking)} tensors that {index.name} places in "
                f"it, among them {listed(lacking, 1)}. The files are not of one download."
            )
        # What the index does not mention is kept, so that it can be reported as unused.
        entries |= {n: entry for n, entry in held.items() if shard_of.get(n, shard) == shard}
    return entries


def _entries(file: Path) -> dict[str, Entry]:
    """Open one file of weights."""
    check_file(file, "the file of weights")
    if file.suffix != ".safetensors":
        state = read_torch(file)
        while isinstance(state, dict) and (
            inner := next((state[x] for x in _STATES if isinstance(state.get(x), dict)), None)
        ):
            state = inner
        if not isinstance(state, dict):
            raise CheckpointError(f"{file}: holds a {type(state).__name__}, not tensors by name")
        try:
            return Tensors.of(state)._entries
        except CheckpointError as error:
            raise CheckpointError(f"{file}: {error}") from None

    from safetensors import SafetensorError, safe_open

    try:
        opened = safe_open(file, framework="numpy")
    except SafetensorError as error:
        raise CheckpointError(f"{file}: {_damage(file)} ({error})") from error
    entries = {}
    for name in sorted(opened.keys()):
        view = opened.get_slice(name)
        if view.get_dtype() not in _SAFETENSORS_TYPES:
            raise CheckpointError(
                f"{file}: {harmless(name)} is stored as {view.get_dtype()}; "
                f"known are {', '.join(_SAFETENSORS_TYPES)}"
            )
        entries[name] = Entry(
            tuple(view.get_shape()),
            _SAFETENSORS_TYPES[view.get_dtype()],
            partial(opened.get_tensor, name),
        )
    return entries


def _damage(file: Path) -> str:
    """Describe the fault of a file that safetensors refused: length (8 bytes), header, data."""
    size = file.stat().st_size
    with open(file, "rb") as stream:
        start = stream.read(64)
        header_size = int.from_bytes(start[:8], "little")
        if size < 8 or header_size > _MAX_HEADER:
            return f"not a safetensors file: {describe(start)}"
        stream.seek(8)
        header = stream.read(header_size)
    expected = 8 + header_size
    if size >= expected:
        try:
            tensors = json.loads(header)
            tensors.pop("__metadata__", None)
            expected += max((t["data_offsets"][1] for t in tensors.values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            return "damaged: its header cannot be read. Download or copy it again"
    if size == expected:
        return "damaged: its header contradicts itself. Download or copy it again"
    wanted = f"at least {expected:,}" if size < 8 + header_size else f"{expected:,}"
    kind = "truncated" if size < expected else "damaged"
    return f"{kind}: has {size:,} bytes, expected {wanted}. Download or copy it again"
