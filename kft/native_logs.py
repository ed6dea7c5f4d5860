"""What libraries in C++ write to the terminal when they are imported, and how to hold it back."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

LEVEL = "TF_CPP_MIN_LOG_LEVEL"  # the variable by which users choose what TensorFlow writes
ERRORS_ALONE = "2"
_NO_ERROR = re.compile(
    rb"[IW]\d{4} .*|WARNING: All log messages before absl.*|To enable the f.*"
    rb"|E\d{4} .*failed call to cuInit.*\(303\).*"  # there is no driver of a GPU
)


@contextmanager
def without_native_logs() -> Iterator[None]:
    """Hold back what libraries in C++ write to stderr, and drop their lines that are no errors.

    TensorFlow writes some of them before it reads the variable `LEVEL`. Where the user has set it
    to another level, nothing is held back.

    Example:
        >>> with without_native_logs():
        ...     import keras
    """
    if os.environ.setdefault(LEVEL, ERRORS_ALONE) != ERRORS_ALONE:
        yield
        return
    try:
        stderr = os.dup(2)
    except OSError:  # closed
        yield
        return
    with tempfile.TemporaryFile() as kept:
        sys.stderr.flush()
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            kept.seek(0)
            lines = [line for line in kept if not _NO_ERROR.match(line)]
            os.write(2, b"".join(lines))
