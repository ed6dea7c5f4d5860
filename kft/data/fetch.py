"""Find a published file in the user's folder or in the cache, else download and check it."""

import hashlib
import os
import tempfile
import urllib.request
from http.client import HTTPException
from pathlib import Path

TIMEOUT = 30  # seconds without an answer, not for the whole download
CHUNK = 1 << 16  # bytes


def find(relative_path, url, sha256):
    """Return the path of a published file, downloading it if it is nowhere on this machine.

    Looks in the folder that the environment variable KFT_DATA names, then in the cache (the
    folder KFT_CACHE, or ~/.cache/kft), then asks the publisher. The content is checked each time.

    Args:
        relative_path: where the file is inside of those folders.
        url: the publisher's address.
        sha256: checksum of the content, in hexadecimal.

    Returns:
        pathlib.Path: an existing file with that checksum.

    Raises:
        FileNotFoundError: if KFT_DATA names a folder that does not exist.
        ValueError: if a file that was found or downloaded is not the published one.
        ConnectionError: if the file is not here and could not be downloaded.

    Example:
        >>> find("flip/gb1/splits.zip", GB1_URL, GB1_SHA256)  # doctest: +SKIP
        PosixPath('/home/me/.cache/kft/flip/gb1/splits.zip')
    """
    cached = Path(os.environ.get("KFT_CACHE") or "~/.cache/kft").expanduser() / relative_path
    for path in (*_in_user_folder(relative_path), cached):
        if path.is_file():
            _check(path, sha256, path, f"Move it away, and the file is downloaded from {url}.")
            return path
    _download(url, cached, sha256)
    return cached


def _in_user_folder(relative_path):
    if not os.environ.get("KFT_DATA"):
        return []
    folder = Path(os.environ["KFT_DATA"]).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"KFT_DATA names {folder}, which is not a folder; correct it, or unset it to use the "
            "cache and the publisher."
        )
    return [folder / relative_path]


def _download(url, target, sha256):
    """Write to a temporary neighbour and rename, so that a broken download leaves nothing."""
    part = None
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
                part = Path(file.name)
                _copy(response, file, target)
        _check(part, sha256, url, "Try again later; if it persists, the publisher changed it.")
        part.chmod(0o644)  # temporary files are private, but a cache may be shared by a group
        os.replace(part, target)
    except (OSError, HTTPException) as error:
        raise ConnectionError(_all_ways(url, target, error)) from None
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def _copy(response, file, target):
    from rich.console import Console
    from rich.progress import Progress

    size = int(response.headers.get("Content-Length") or 0)
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("/".join(target.parts[-3:]), total=size or None)
        while chunk := response.read(CHUNK):
            file.write(chunk)
            progress.advance(task, len(chunk))
    if size and file.tell() != size:
        raise ConnectionError(f"the connection broke after {file.tell():,} of {size:,} bytes")


def _check(path, sha256, origin, advice):
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise ValueError(
            f"{origin} is not the published file: its sha256 is {found}, expected {sha256}. "
            f"{advice}"
        )


def _all_ways(url, target, error):
    return (
        f"{url} could not be downloaded ({error}). Do one of these three: set KFT_DATA to a "
        f"folder that holds {'/'.join(target.parts[-3:])}; or put the file into the cache at "
        f"{target}; or go online and try again."
    )
