"""Programs that JAX has compiled, kept in the user's cache for the next model, call and run."""

from __future__ import annotations

import hashlib
import platform
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras

from kft.files import cache_folder

_MOST_BYTES = 2**30  # then JAX removes those that were not used for the longest time
_MONTH = 30 * 24 * 3600  # seconds


@contextmanager
def kept_programs() -> Iterator[None]:
    """Keep programs that are compiled within the `with` block, on JAX, and take those kept before.

    JAX compiles a program for each model and shape, in seconds to minutes. Programs are kept in
    the folder `programs` of kft's cache (KFT_CACHE, or ~/.cache/kft), at most a gigabyte. A cache
    of JAX that the user has set or switched off stays as it is, as do other backends.
    """
    folder = _folder() if keras.backend.backend() == "jax" else None
    if folder is None:
        yield
        return
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_compilation_cache_max_size": _MOST_BYTES,
        "jax_persistent_cache_min_compile_time_secs": 0.1,
    }
    before = {name: getattr(jax.config, name) for name in settings}

    def update(values: dict) -> None:
        for name, value in values.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()  # or it would not read the settings again

    update(settings)
    try:
        yield
    finally:
        update(before)


def _folder() -> Path | None:
    """Return the folder of programs for this processor; None if none are to be kept.

    A program for a processor with other instructions could not be run. Folders that were not used
    for a month are removed.
    """
    import jax

    if jax.config.jax_compilation_cache_dir or not jax.config.jax_enable_compilation_cache:
        return None
    root = cache_folder() / "programs"
    processor = Path("/proc/cpuinfo")
    key = [platform.machine(), platform.processor(), jax.__version__]
    try:
        if processor.exists():
            key += re.findall(r"^(?:flags|Features).*", processor.read_text(), re.M)[:1]
        folder = root / hashlib.sha256(repr(key).encode()).hexdigest()[:16]
        if not folder.exists():
            folder.mkdir(parents=True)
        elif time.time() - folder.stat().st_mtime < _MONTH / 30:
            return folder  # used today
        folder.touch()
        for other in root.iterdir():
            if time.time() - other.stat().st_mtime > _MONTH:
                shutil.rmtree(other, ignore_errors=True)
    except OSError:  # the cache cannot be written
        return None
    return folder
