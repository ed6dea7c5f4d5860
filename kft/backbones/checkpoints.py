"""Weights by name from checkpoint files, and checkpoint folders from the Hugging Face hub.

`read_safetensors` opens what transformers writes: one `.safetensors` file, a folder of shards with
an index, or the same as `pytorch_model.bin`. `hub_folder` brings such a folder here. Neither knows
a model, Keras or torch; `esm2.py` says which tensor is which variable.

Names: a tensor is *read* only when it is asked for, so that a model larger than half the memory
can be loaded one tensor at a time.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

from kft.backbones.torch_files import CheckpointError, describe, read_torch

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
_FLOATS = {"float64", "float32", "float16", "bfloat16"}
_MAX_HEADER = 100_000_000  # bytes; the safetensors format allows no longer one


@dataclass(frozen=True)
class LoadReport:
    """What became of a checkpoint.

    Attributes:
        source: where it came from.
        filled: paths of our weights that were filled.
        missing: paths of our weights that the file does not hold; they keep random values.
        skipped: names of tensors in the file that are not used.
    """

    source: str
    filled: tuple[str, ...]
    missing: tuple[str, ...]
    skipped: tuple[str, ...]


class Entry(NamedTuple):
    """What a checkpoint says of one tensor, and how to read it."""

    shape: tuple[int, ...]
    dtype: np.dtype  # as stored
    read: Callable[[], np.ndarray]


class Tensors(Mapping[str, np.ndarray]):
    """The tensors of a checkpoint by name; each is read when it is asked for, and not kept.

    Args:
        entries: Shape, stored type and reader of each tensor.
        dtype: Floating-point tensors come as this type whatever was stored; `None` keeps the
            stored one. Integers and booleans are never converted.
        source: What errors call the checkpoint.

    Raises:
        CheckpointError: When a floating-point tensor is asked for that holds NaN, an infinity, or
            a number that `dtype` cannot hold; names it.

    Example:
        >>> tensors = Tensors.of({"bias": np.zeros(3, "float16")})
        >>> tensors.shape("bias"), tensors["bias"].dtype
        ((3,), dtype('float32'))
    """

    def __init__(
        self, entries: Mapping[str, Entry], dtype: str | None = "float32", source: object = ""
    ):
        self._entries = dict(entries)
        self._dtype, self._source = dtype, source

    @classmethod
    def of(
        cls, arrays: Mapping[str, np.ndarray], dtype: str | None = "float32", source: object = ""
    ) -> "Tensors":
        """Serve arrays that are already here, such as those from `read_torch`.

        Args:
            arrays: Arrays by name.
            dtype, source: As for `Tensors`.

        Returns:
            The same tensors, as `Tensors`.

        Raises:
            CheckpointError: If a value is not an array; names it.
        """
        for name, array in arrays.items():
            if not isinstance(name, str) or not isinstance(array, np.ndarray):
                raise CheckpointError(
                    f"{name!r} is a {type(array).__name__} where a tensor was expected"
                )
        entries = {n: Entry(a.shape, a.dtype, partial(np.asarray, a)) for n, a in arrays.items()}
        return cls(entries, dtype, source)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape without reading it."""
        return self._entries[name].shape

    def dtype(self, name: str) -> np.dtype:
        """Return the type that a tensor is stored in, without reading it."""
        return self._entries[name].dtype

    def no_floats(self, names: Iterable[str]) -> list[str]:
        """Say which of some tensors hold no floating-point numbers, without reading them.

        Args:
            names: Of tensors that are to be weights.

        Returns:
            One clause for each such tensor, for example "bias is stored as int8".
        """
        return [
            f"{name} is stored as {self.dtype(name)}, expected floating-point numbers (of a "
            f"quantised model take the original)"
            for name in names
            if self.dtype(name).name not in _FLOATS
        ]

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self._entries[name]
        if entry.dtype.name not in _FLOATS:
            return np.array(entry.read(), dtype=entry.dtype, order="C")
        stored = entry.read()
        with np.errstate(over="ignore", invalid="ignore"):
            # Always a copy: what is mapped is read-only and would change with the file.
            array = np.array(stored, dtype=self._dtype or entry.dtype, order="C")
            # One sum is NaN or infinite if any number is; the reverse is looked at below.
            finite = np.isfinite(array.sum(dtype=array.dtype))
        if not finite:
            _insist_on_numbers(f"{self._source}: {name}".removeprefix(": "), stored, array)
        return array

    def __contains__(self, name: object) -> bool:
        return name in self._entries  # Mapping's own would read the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Tensors({len(self)} tensors)"


def _insist_on_numbers(name: str, stored: np.ndarray, array: np.ndarray) -> None:
    wrong = ~np.isfinite(array)
    if wrong.any():
        first = np.asarray(stored)[wrong][0]
        too_large = f", which {array.dtype} cannot hold" if np.isfinite(first) else ""
        raise CheckpointError(
            f"{name} holds {wrong.sum():,} of {wrong.size:,} values that are no finite numbers, "
            f"the first {first:g}{too_large}. The file is damaged, or of a training that diverged: "
            f"take another copy or an earlier checkpoint."
        )


# -------------------------------------------------------------------------- files and folders


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
        FileNotFoundError: If there is no such file or folder, no weights in the folder, or a shard
            is missing.
        CheckpointError: If a file is empty, truncated, damaged or of another kind, or if the index
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
    elif not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    entries = _shards(path) if path.suffix == ".json" else _entries(path)
    return Tensors(entries, dtype, path)


def _weights_in(folder: Path) -> Path:
    for name in _LAYOUTS:
        if (folder / name).exists():
            return folder / name
    present = ", ".join(sorted(file.name for file in folder.iterdir())) or "nothing"
    raise FileNotFoundError(
        f"{folder}: no weights here. Looked for {', '.join(_LAYOUTS)}; found {present}."
    )


def _shards(index: Path) -> dict[str, Entry]:
    """Open every shard that an index names."""
    try:
        shard_of = dict(json.loads(index.read_bytes())["weight_map"])
        shards = sorted(set(shard_of.values()))
        outside = [name for name in shards if Path(name).name != name]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{index}: damaged index, expected a JSON object with a weight_map "
            f"({type(error).__name__}: {error}). Download or copy it again."
        ) from error
    if outside:
        raise CheckpointError(f"{index}: names a shard outside its folder: {outside[0]}")
    absent = [name for name in shards if not (index.parent / name).exists()]
    if absent:
        raise FileNotFoundError(
            f"{index.parent}: {len(absent)} of {len(shards)} shards missing: {', '.join(absent)}. "
            f"They are named in {index.name}; download or copy them again."
        )
    entries: dict[str, Entry] = {}
    for shard in shards:
        held = _entries(index.parent / shard)
        lacking = [name for name, home in shard_of.items() if home == shard and name not in held]
        if lacking:
            raise CheckpointError(
                f"{index.parent / shard}: lacks {len(lacking)} tensors that {index.name} places in "
                f"it, among them {lacking[0]}. The files are not of one download."
            )
        # What the index does not mention is kept, so that it can be reported as unused.
        entries |= {n: entry for n, entry in held.items() if shard_of.get(n, shard) == shard}
    return entries


def _entries(file: Path) -> dict[str, Entry]:
    """Open one file of weights."""
    if file.suffix != ".safetensors":
        state = read_torch(file)
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
                f"{file}: {name} is stored as {view.get_dtype()}; "
                f"known are {', '.join(_SAFETENSORS_TYPES)}"
            )
        entries[name] = Entry(
            tuple(view.get_shape()),
            _SAFETENSORS_TYPES[view.get_dtype()],
            partial(opened.get_tensor, name),
        )
    return entries


def _damage(file: Path) -> str:
    """Say what is wrong with a file that safetensors refused: 8 bytes of length, header, data."""
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
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return "damaged: its header cannot be read. Download or copy it again"
    if size == expected:
        return "damaged: its header contradicts itself. Download or copy it again"
    wanted = f"at least {expected:,}" if size < 8 + header_size else f"{expected:,}"
    kind = "truncated" if size < expected else "damaged"
    return f"{kind}: has {size:,} bytes, expected {wanted}. Download or copy it again"


# ---------------------------------------------------------------------------------------- hub

_CONFIGS = ["config.json", "preprocessor_config.json"]
_SAFETENSORS_FILES = ["model.safetensors", "model-*.safetensors", "model.safetensors.index.json"]
_TORCH_FILES = ["pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json"]
_TIMEOUT = 10  # seconds; a firewall that drops packets would otherwise hold us for minutes


def hub_folder(repo_id: str, revision: str | None = None) -> Path:
    """Download a model's config and weights from the Hugging Face hub, or find them in its cache.

    The weights are the safetensors files, or `pytorch_model*.bin` where a repository has no
    others. The cache, its place (`HF_HOME`), the progress bar, the token and the environment
    variables `HF_ENDPOINT` and `HF_HUB_OFFLINE` are huggingface_hub's own.

    Args:
        repo_id: Repository such as `"facebook/esm2_t6_8M_UR50D"`.
        revision: Branch, tag or commit; the default branch if `None`.

    Returns:
        The folder, to be given to `read_safetensors`.

    Raises:
        ConnectionError: If the hub cannot be reached and the cache lacks the files; says what
            works without a network.
        FileNotFoundError: If there is no such repository or revision.
        PermissionError: If the repository wants a licence accepted or a token.
        ValueError: If `repo_id` is not of the form `owner/name`.

    Source: `huggingface_hub.snapshot_download`.

    Example:
        >>> folder = hub_folder("facebook/esm2_t6_8M_UR50D")  # doctest: +SKIP
    """
    from huggingface_hub import HfApi, snapshot_download

    # huggingface_hub reads this variable once, at import; another library may have imported it.
    endpoint = os.environ.get("HF_ENDPOINT") or None
    fetch = partial(snapshot_download, repo_id, revision=revision, endpoint=endpoint)
    try:
        info = HfApi(endpoint=endpoint).model_info(repo_id, revision=revision, timeout=_TIMEOUT)
        names = {file.rfilename for file in info.siblings or []}
        weights = _SAFETENSORS_FILES if names & set(_LAYOUTS[:2]) else _TORCH_FILES
        return Path(fetch(allow_patterns=[*_CONFIGS, *weights]))
    except Exception as error:  # what the transport raises differs between its versions
        folder = _cached(fetch)
        if folder is None:
            raise _hub_error(repo_id, revision, error) from error
        return folder


def _cached(fetch: Callable[..., str]) -> Path | None:
    """Find an earlier download; None if there is none, or only a part of one."""
    try:
        folder = fetch(allow_patterns=[*_CONFIGS, *_SAFETENSORS_FILES], local_files_only=True)
        return _weights_in(Path(folder)).parent
    except (OSError, ValueError):
        return None


def _hub_error(repo_id: str, revision: str | None, error: Exception) -> Exception:
    """Say in our words why a download failed and what to do."""
    from huggingface_hub import errors

    at = f"{repo_id} at revision {revision}" if revision else repo_id
    if isinstance(error, errors.GatedRepoError):
        return PermissionError(
            f"{at}: the Hugging Face hub gives this model only to those who accepted its terms. "
            "Accept them on the model's page, then run `hf auth login`."
        )
    if isinstance(error, errors.RepositoryNotFoundError | errors.RevisionNotFoundError):
        return FileNotFoundError(
            f"{at}: not found on the Hugging Face hub. Check the name; "
            "if it is private, run `hf auth login` first."
        )
    network = (ConnectionError, errors.HfHubHTTPError, errors.LocalEntryNotFoundError)
    if isinstance(error, OSError | ValueError) and not isinstance(error, network):
        return error  # a full disk, an ill-formed name: already said plainly
    reason = " ".join(str(error).split()) or "no reason given"
    return ConnectionError(
        f"{at}: could not be downloaded from the Hugging Face hub, and is not in its cache "
        f"({type(error).__name__}: {reason}).\n"
        "What kft.load takes without a network:\n"
        f"  - a folder: run `hf download {repo_id} --local-dir FOLDER` on a connected machine, "
        "copy FOLDER here, then kft.load('FOLDER');\n"
        "  - a FAIR .pt file: kft.load('FILE.pt');\n"
        "  - random weights: kft.load(NAME, weights=False);\n"
        "  - the model that ships with kft: kft.load('kft_esm2_tiny')."
    )
