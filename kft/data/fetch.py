"""Find a published file in the user's folder or in the cache, else download and check it."""

from __future__ import annotations

import hashlib
import os
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO

from kft.files import atomic_write, cache_folder, check_sha256

TIMEOUT = 30  # seconds without a response, not for the whole download
CHUNK = 1 << 16  # bytes


def find(relative_path: str, url: str, sha256: str) -> Path:
    """Return the path of a published file, and download it if it is not on this machine.

    The file is looked for in the folder that the environment variable KFT_DATA names, then in the
    cache (the folder KFT_CACHE, or ~/.cache/kft), and is downloaded otherwise. Its content is
    checked each time.

    Args:
        relative_path: Path of the file inside of those folders.
        url: Address of the published file.
        sha256: Checksum of the content, in hexadecimal.

    Returns:
        The path of an existing file with that checksum.

    Raises:
        FileNotFoundError: KFT_DATA names a folder that does not exist.
        ValueError: A file that was found or downloaded is not the published one.
        ConnectionError: The file is not on this machine and could not be downloaded.

    Example:
        >>> find("flip/gb1/splits.zip", GB1_URL, GB1_SHA256)  # doctest: +SKIP
        PosixPath('/home/me/.cache/kft/flip/gb1/splits.zip')
    """
    cached = cache_folder() / relative_path
    for path in (*_in_user_folder(relative_path), cached):
        if path.is_file():
            check_sha256(path, sha256, f"Move it away, and the file is downloaded from {url}.")
            return path
    _download(url, cached, sha256)
    return cached


def _in_user_folder(relative_path: str) -> list[Path]:
    if not os.environ.get("KFT_DATA"):
        return []
    folder = Path(os.environ["KFT_DATA"]).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"KFT_DATA names {folder}, which is not a folder. Correct it, or unset it to use the "
            "cache and the publisher."
        )
    return [folder / relative_path]


def _download(url: str, target: Path, sha256: str) -> None:
    """Download to a temporary file, check it and rename it."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(target) as stream:
                received = _copy(response, stream, target)
                if received != sha256:
                    raise ValueError(
                        f"{url} is not the published file: its sha256 is {received}, expected "
                        f"{sha256}. Try again later; if it persists, the publisher has changed it."
                    )
    except (OSError, HTTPException) as error:
        raise ConnectionError(_all_ways(url, target, error)) from None


def _copy(response: HTTPResponse, stream: BinaryIO, target: Path) -> str:
    """Copy a response to a stream, with a progress bar, and return the sha256 of the content."""
    from rich.console import Console
    from rich.progress import Progress

    size = int(response.headers.get("Content-Length") or 0)
    digest = hashlib.sha256()
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("/".join(target.parts[-3:]), total=size or None)
        while chunk := response.read(CHUNK):
            stream.write(chunk)
            digest.update(chunk)
            progress.advance(task, len(chunk))
    if size and stream.tell() != size:
        raise ConnectionError(f"the connection broke after {stream.tell():,} of {size:,} bytes")
    return digest.hexdigest()


def _all_ways(url: str, target: Path, error: Exception) -> str:
    return (
        f"{url} could not be downloaded ({error}). Do one of these three: set KFT_DATA to a "
        f"folder that holds {'/'.join(target.parts[-3:])}; or put the file into the cache at "
        f"{target}; or go online and try again."
    )
