"""Writing files so that they are complete at any moment, reading small ones, and the cache."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def atomic_write(path: Path | str) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` when it is complete and on the disk.

    If the process is killed, `path` stays as it was and the temporary file stays next to it, for
    `remove_unfinished`. If an error is raised, `path` stays as it was and the temporary file is
    removed.

    Args:
        path: Path of the file. Its folder must exist.

    Yields:
        A binary stream.

    Raises:
        OSError: The file cannot be written, for example because the disk is full.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_write(f"{folder}/a") as stream:
        ...         _ = stream.write(b"whole")
        ...     Path(folder, "a").read_text()
        'whole'
    """
    path = Path(path)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(unfinished, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())  # before renaming, or a power cut leaves an empty file
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


_READY, _LIST = ".replacing", "files.json"


@contextmanager
def atomic_replace(folder: Path | str, names: Iterable[str]) -> Iterator[Path]:
    """Create a temporary folder whose files then replace those in another folder all at once.

    If the process is killed, either all old files are there or all new ones. In the second case
    some may not have been moved yet: `finish_replacing` moves them. Files of other names in the
    folder stay.

    Args:
        folder: Folder in which files are replaced. It must exist.
        names: Names of the files that are replaced. Those that are not written again are removed.

    Yields:
        The `Path` of an empty folder.

    Raises:
        OSError: Something cannot be written, for example because the disk is full.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "b").write_text("old")
        ...     with atomic_replace(folder, ["a", "b"]) as new:
        ...         _ = Path(new, "a").write_text("new")
        ...     [path.name for path in Path(folder).iterdir()]
        ['a']
    """
    folder = Path(folder)
    finish_replacing(folder)
    for left in folder.glob(f"{_READY}.*.part"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    unfinished = folder / f"{_READY}.{os.getpid()}.part"
    unfinished.mkdir()
    try:
        yield unfinished
        written = {name: (unfinished / name).exists() for name in names}
        (unfinished / _LIST).write_text(json.dumps(written))
        for file in [*unfinished.iterdir(), unfinished]:
            _sync(file)
        unfinished.rename(folder / _READY)  # from here on the new files are the valid ones
        finish_replacing(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def finish_replacing(folder: Path | str) -> None:
    """Move the files of an `atomic_replace` that was killed while it moved them.

    Args:
        folder: Folder in which files are replaced. It may not exist.

    Raises:
        OSError: There are such files, and they cannot be moved.

    Example:
        >>> finish_replacing("no such folder")
    """
    folder = Path(folder)
    ready = folder / _READY
    if not (ready / _LIST).exists():  # all were moved, but the folder may still be there
        if ready.is_dir():
            ready.rmdir()
        return
    files = json.loads((ready / _LIST).read_text())
    for name, written in files.items():
        if not written:
            (folder / name).unlink(missing_ok=True)
        elif (ready / name).exists():
            (ready / name).replace(folder / name)
    _sync(folder)
    (ready / _LIST).unlink()
    ready.rmdir()


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk; a folder cannot be opened on Windows."""
    if path.is_dir() and os.name == "nt":
        return
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def remove_unfinished(path: Path | str) -> None:
    """Remove the temporary files that killed processes left behind in `atomic_write`.

    Nobody may be writing `path` meanwhile.

    Args:
        path: Path of the file that they would have written.

    Raises:
        OSError: A temporary file cannot be removed.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "a.1.part").touch()
        ...     remove_unfinished(f"{folder}/a")
        ...     list(Path(folder).iterdir())
        []
    """
    path = Path(path)
    for part in path.parent.glob(f"{glob.escape(path.name)}.*.part"):
        part.unlink(missing_ok=True)


def ensure_writable(folder: Path | str) -> Path:
    """Create a folder and write to it, so that a long run fails at its start and not at its end.

    Args:
        folder: Path of the folder. Missing parent folders are created.

    Returns:
        The path of the folder.

    Raises:
        OSError: The folder cannot be created, or nothing can be written to it.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ensure_writable(f"{folder}/a/b").name
        'b'
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        return folder


def check_file(path: Path | str, called: str) -> Path:
    """Check that a path leads to a plain file, which can be read without waiting for anybody.

    Args:
        path: Path of the file.
        called: What errors call it, for example "`path`".

    Returns:
        The path.

    Raises:
        FileNotFoundError: There is nothing, a link to nothing, or a folder.
        ValueError: It is a pipe, a socket or a device.

    Example:
        >>> check_file(__file__, "`path`").suffix
        '.py'
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise type(error)(
                f"{called} is {str(path)[:200]!r}, which cannot be read ({error.strerror})."
            ) from None
        kind = "a link to a file that does not exist" if path.is_symlink() else "not a file"
        raise FileNotFoundError(
            f"{called} is {path}, which is {kind}; check the name (from {Path.cwd()})."
        ) from None
    if stat.S_ISDIR(mode):
        raise FileNotFoundError(f"{called} is {path}, which is not a file, but a folder.")
    if not stat.S_ISREG(mode):
        raise ValueError(
            f"{called} is {path}, which is a pipe, a socket or a device: copy its content to a "
            f"file."
        )
    return path


def check_sha256(path: Path | str, expected: str, advice: str) -> None:
    """Check that a file is the published one.

    Args:
        path: Path of the file.
        expected: sha256 of its content, in hexadecimal.
        advice: What the error says should be done.

    Raises:
        ValueError: The file has another content.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "empty")
        ...     path.touch()
        ...     check_sha256(path, hashlib.sha256().hexdigest(), "Download it again.")
    """
    with open(path, "rb") as stream:
        received = hashlib.file_digest(stream, "sha256").hexdigest()
    if received != expected:
        raise ValueError(
            f"{path} is not the published file: its sha256 is {received}, expected {expected}. "
            f"{advice}"
        )


_MOST_JSON, _DEEPEST_JSON = 16 * 2**20, 32  # bytes; levels


def read_json(path: Path | str, most_bytes: int = _MOST_JSON) -> dict[str, Any]:
    """Read a file that holds one JSON object, such as the configuration of a model.

    Args:
        path: Path of the file.
        most_bytes: Largest size that is read.

    Returns:
        The object.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is too large, not JSON in UTF-8, nested too deeply, or another value than an
            object.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "config.json")
        ...     _ = path.write_text('{"hidden_size": 320}')
        ...     read_json(path)
        {'hidden_size': 320}
    """
    path = check_file(path, "the file")
    if (size := path.stat().st_size) > most_bytes:
        raise ValueError(
            f"{path} has {size:,} bytes, and a file of this kind at most {most_bytes:,}: it is "
            f"another file, or damaged."
        )
    try:
        found = json.loads(path.read_bytes().decode("utf-8-sig"))
        problem = _too_deep(found)
    except RecursionError:
        problem = True
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged: not JSON ({error}). Copy or download it again."
        ) from None
    if problem:
        raise ValueError(
            f"{path} is damaged: it is nested more than {_DEEPEST_JSON} levels deep. Copy or "
            f"download it again."
        )
    if not isinstance(found, dict):
        raise ValueError(
            f"{path} must hold a JSON object, received {_ARTICLES.get(type(found), 'null')}: check "
            f"that it is the right file."
        )
    return found


_ARTICLES = {list: "a list", str: "a string", int: "a number", float: "a number", bool: "a boolean"}


def _too_deep(value: Any) -> bool:
    """Return whether lists and dicts are nested more than `_DEEPEST_JSON` levels deep."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(_DEEPEST_JSON):
        inside: list[Any] = []
        for item in level:
            inside += item.values() if isinstance(item, dict) else item
        level = [item for item in inside if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def cache_folder() -> Path:
    """Return the folder for downloaded data sets and finished trainings.

    Returns:
        The folder that the environment variable KFT_CACHE names, else ~/.cache/kft. It may not
        exist yet.

    Example:
        >>> os.environ["KFT_CACHE"] = "/tmp/kft"
        >>> cache_folder().as_posix()
        '/tmp/kft'
        >>> del os.environ["KFT_CACHE"]
    """
    return Path(os.environ.get("KFT_CACHE") or "~/.cache/kft").expanduser()
