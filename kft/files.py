"""Files that are whole at any moment, and folders that are known to take them."""

import glob
import os
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
