"""Writing files so that they are complete at any moment, reading small ones, the cache.

Whatever is being written lies aside, under `.NAME.MACHINE-KEY.part` next to the file or folder NAME
that it will be. Its writer holds a lock on `.NAME.MACHINE-KEY.lock` meanwhile, which ends with the
process, however that ends. What has no living writer any more is removed by whoever writes NAME
next. A lock is only trusted on the machine that took it (containers of one machine share its
kernel, and so its locks); what another machine writes on a shared disk is left alone until nothing
in it has changed for `STALE` seconds.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import platform
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

try:
    import fcntl
except ImportError:  # Windows: only the age of what is aside tells
    fcntl = None  # type: ignore[assignment]

STALE = 3600  # seconds without a change after which a writer on another machine counts as dead

# Writing aside ------------------------------------------------------------------------------------


class Aside:
    """A place next to a file or folder, where one process writes it before it is complete.

    What dead writers left for the same file or folder is removed, except under the same `key`: that
    is continued.

    Args:
        path: The file or folder to be written. The folder that it lies in must exist.
        key: Letters and digits that identify the work, so that a later process with the same key
            continues it; None for work that is not continued. While another process has this key,
            the work is begun in another place.

    Attributes:
        path: Path under which to write, a file or a folder; nothing is there if the work is new.

    Raises:
        OSError: Nothing can be written next to `path`.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     aside = Aside(f"{folder}/a")
        ...     _ = aside.path.write_text("half")
        ...     aside.close()
        ...     list(Path(folder).iterdir())
        []
    """

    def __init__(self, path: Path | str, key: str | None = None):
        path = Path(path)
        earlier = path.parent.glob(f"{_pattern(path)}{key}.part")
        places = [] if key is None else [*sorted(earlier), _beside(path, key)]
        lock = None
        for place in places:
            if (lock := _taken(place)) is not None:
                break
        while lock is None:  # no key, or another process has it
            place = _beside(path, uuid4().hex[:12])
            lock = _taken(place)
        self.path = place
        self._lock: int | None = lock
        remove_unfinished(path)

    def close(self, keep: bool = False) -> None:
        """End the work.

        Args:
            keep: Whether what was written stays, for a later process with the same key.
        """
        if self._lock is None:
            return
        if not keep:
            _remove(self.path)
        _release(self.path, self._lock)
        self._lock = None


@contextmanager
def only_writer(folder: Path | str) -> Iterator[None]:
    """Hold a folder for this process, so that no other one writes to it meanwhile.

    It is free again when the process ends, however it ends.

    Args:
        folder: The folder, which must exist.

    Raises:
        BlockingIOError: Another process holds it.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with only_writer(folder):
        ...         _ = Path(folder, "a").write_text("whole")
    """
    called = Path(folder) / _WRITER
    own = _beside(called, _WRITER)
    others = [x.with_suffix(".part") for x in called.parent.glob(f"{_pattern(called)}.lock")]
    held = []
    try:
        for place in dict.fromkeys([*others, own]):
            if (lock := _taken(place)) is None:
                raise BlockingIOError(
                    f"another process is writing to {folder}: wait until it has ended, or name "
                    "another folder. If none is running, perhaps on another machine, remove "
                    f"{place.with_suffix('.lock')}."
                )
            held.append((place, lock))
        yield
    finally:
        for place, lock in held:
            _release(place, lock)


_WRITER = "writer"


@contextmanager
def atomic_write(path: Path | str) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` when it is complete and on the disk.

    If the process is killed, `path` stays as it was and the temporary file stays next to it until
    `path` is written again. If an error is raised, `path` stays as it was and the temporary file is
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
    aside = Aside(path)
    try:
        with open(aside.path, "wb") as stream:
            yield stream
        move_into_place(aside.path, path)
    finally:
        aside.close()


def write_text(path: Path | str, text: str) -> None:
    """Write a text file in UTF-8 that replaces `path` when it is complete, see `atomic_write`.

    Args:
        path: Path of the file. Its folder must exist.
        text: Its content.

    Raises:
        OSError: The file cannot be written; `path` is as it was.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_text(f"{folder}/a", "whole")
        ...     Path(folder, "a").read_text()
        'whole'
    """
    with atomic_write(path) as stream:
        stream.write(text.encode())


def move_into_place(file: Path, path: Path | str) -> None:
    """Rename a complete file to `path`, once its content is on the disk.

    Args:
        file: The file, on the same disk as `path`.
        path: Its new path; a file that is there is replaced.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a").write_text("new")
        ...     move_into_place(Path(folder, "a"), Path(folder, "b"))
        ...     Path(folder, "b").read_text()
        'new'
    """
    _sync(file)  # before renaming, or a power cut leaves an empty file
    file.replace(path)


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
    aside = Aside(folder / _READY)
    try:
        aside.path.mkdir()
        yield aside.path
        written = {name: (aside.path / name).exists() for name in names}
        (aside.path / _LIST).write_text(json.dumps(written))
        for file in [*aside.path.iterdir(), aside.path]:
            _sync(file)
        aside.path.rename(folder / _READY)  # from here on the new files are the valid ones
        finish_replacing(folder)
    finally:
        aside.close()


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


def remove_unfinished(path: Path | str, age: float = 0) -> None:
    """Remove what was being written aside by processes that have ended.

    Args:
        path: The file or folder that was being written; a name with `*` for several.
        age: Seconds for which nothing has changed in what is removed.

    Raises:
        OSError: Something cannot be removed.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ended = Aside(f"{folder}/a", key="work")
        ...     _ = ended.path.write_text("half")
        ...     ended.close(keep=True)
        ...     remove_unfinished(f"{folder}/a")
        ...     list(Path(folder).iterdir())
        []
    """
    path = Path(path)
    found = {x.with_suffix(".part") for x in path.parent.glob(f"{_pattern(path)}.*")}
    for unfinished in found:
        old = not age or _unchanged_for(unfinished) > age
        if old and (lock := _taken(unfinished)) is not None:
            _remove(unfinished)
            _release(unfinished, lock)
    for pattern in _EARLIER if "*" not in path.name else ():
        for left in path.parent.glob(pattern.format(glob.escape(path.name))):
            if _unchanged_for(left) > max(age, STALE):
                _remove(left)


# What earlier versions of kft left: of a file or an adapter, and of predictions or features.
_EARLIER = ("{}.[0-9]*.part", ".{}-????????")


def _beside(path: Path, key: str) -> Path:
    return path.with_name(f".{path.name.removeprefix('.')}.{_machine()}-{key}.part")


def _pattern(path: Path) -> str:
    """Return the names that `_beside` gives for any machine and key, without suffix, as a glob."""
    name = path.name.removeprefix(".")
    return f".{name if '*' in name else glob.escape(name)}.????????-*"


def _machine() -> str:
    """Return a digest of the running kernel, or of the machine's name where kernels have none."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    name = boot.read_text() if boot.exists() else platform.node()
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def _taken(unfinished: Path) -> int | None:
    """Lock a place aside; return the descriptor, or None while a writer may be alive."""
    path = unfinished.with_suffix(".lock")
    here = f".{_machine()}-" in path.name
    while True:
        try:
            # A lock file is made before what it guards and removed after it: without one, nobody
            # is writing there.
            lock, free = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
        except FileExistsError:
            try:
                lock, free = os.open(path, os.O_RDWR), False
            except FileNotFoundError:
                continue  # it was removed just now
            except PermissionError:
                return None  # it belongs to another user
        held = _lock(lock)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), os.stat(path)):
                dead = free or (here and held) or _unchanged_for(unfinished) > STALE
                if dead and held is not False:
                    os.utime(path)
                    return lock
                os.close(lock)
                return None
        os.close(lock)  # it was removed before it was locked


def _lock(descriptor: int) -> bool | None:
    """Lock an open file: False if another process holds it, None where there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def _release(unfinished: Path, lock: int) -> None:
    try:
        unfinished.with_suffix(".lock").unlink(missing_ok=True)
    finally:
        os.close(lock)


def _unchanged_for(path: Path) -> float:
    """Return the seconds since a file or folder, its lock or anything in it has changed."""
    changed = 0.0
    for part in (path, path.with_suffix(".lock"), *path.rglob("*")):
        with suppress(FileNotFoundError):
            changed = max(changed, part.stat().st_mtime)
    return time.time() - changed


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


# Folders ------------------------------------------------------------------------------------------


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


def sha256_of(path: Path | str) -> str:
    """Return the sha256 of the content of a file, in hexadecimal.

    Args:
        path: Path of the file.
    """
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
    received = sha256_of(path)
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
