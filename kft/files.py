"""Files that are whole at any moment, and folders that are known to take them."""

import glob
import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_aside(path):
    """Opens a file beside `path`, which takes its name once it is written and on the disk.

    A process that is killed leaves the file of that name as it was, and a part for
    `remove_unfinished`; so does an error, which leaves nothing else either.

    Args:
        path: of the file; its folder exists.

    Yields:
        A binary stream.

    Raises:
        OSError: it cannot be written, because the disk is full for one.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with written_aside(f"{folder}/a") as stream:
        ...         _ = stream.write(b"whole")
        ...     Path(folder, "a").read_text()
        'whole'
    """
    path = Path(path)
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(aside, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())  # before the name, or a power cut leaves an empty file
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


_READY, _LIST = ".replacing", "files.json"


@contextmanager
def written_together(folder, names):
    """Gives a folder to write files into, which then replace those in another all at once.

    A process that is killed leaves either all of the old files, or all of the new ones, the last of
    them perhaps still on their way: `finish_replacing` brings them there. Files of other names in
    the folder stay.

    Args:
        folder: where the files are to be; exists.
        names: of the files that are replaced; those that are not written anew are removed.

    Yields:
        The `Path` of an empty folder.

    Raises:
        OSError: something cannot be written, because the disk is full for one.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "b").write_text("old")
        ...     with written_together(folder, ["a", "b"]) as aside:
        ...         _ = Path(aside, "a").write_text("new")
        ...     [path.name for path in Path(folder).iterdir()]
        3
        ['a']
    """
    folder = Path(folder)
    finish_replacing(folder)
    for left in folder.glob(f"{_READY}.*.part"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    aside = folder / f"{_READY}.{os.getpid()}.part"
    aside.mkdir()
    try:
        yield aside
        told = {name: (aside / name).exists() for name in names}
        (aside / _LIST).write_text(json.dumps(told))
        for file in [*aside.iterdir(), aside]:
            _on_disk(file)
        aside.rename(folder / _READY)  # from here on the new files count
        finish_replacing(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def finish_replacing(folder):
    """Brings files to their places that a killed process has written with `written_together`.

    Args:
        folder: where the files are to be; need not exist.

    Raises:
        OSError: they are there, and cannot be moved.

    Example:
        >>> finish_replacing("no such folder")
    """
    folder = Path(folder)
    ready = folder / _READY
    if not (ready / _LIST).exists():  # all are in place, the folder perhaps not yet gone
        if ready.is_dir():
            ready.rmdir()
        return
    told = json.loads((ready / _LIST).read_text())
    for name, written in told.items():
        if not written:
            (folder / name).unlink(missing_ok=True)
        elif (ready / name).exists():
            (ready / name).replace(folder / name)
    _on_disk(folder)
    (ready / _LIST).unlink()
    ready.rmdir()


def _on_disk(path):
    """Waits until a file or folder is on the disk; a folder cannot be opened on Windows."""
    if path.is_dir() and os.name == "nt":
        return
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def remove_unfinished(path):
    """Removes what killed processes left of `written_aside`; nobody may be writing `path` now.

    Args:
        path: of the file that they would have written.

    Raises:
        OSError: it cannot be removed.

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


def writable(folder):
    """Makes a folder and writes to it, to learn at once what would be learned after hours.

    Args:
        folder: its path; folders above it are made, too.

    Returns:
        pathlib.Path: the folder.

    Raises:
        OSError: it cannot be made, or nothing can be written there.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     writable(f"{folder}/a/b").name
        'b'
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        return folder
