"""`kft doctor`."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer

from kft.cli.options import Json
from kft.cli.output import short_errors, show

BACKENDS = ("jax", "torch", "tensorflow")
PACKAGES = ("keras", *BACKENDS, "numpy", "pandas", "scikit-learn", "keras-hub", "huggingface_hub")


def doctor(
    hub: Annotated[bool, typer.Option(help="Whether to ask if the hub can be reached.")] = True,
    as_json: Json = False,
) -> None:
    """Print what kft runs on: backend, versions, devices, threads, caches, and the hub.

    Example: kft doctor --no-hub
    """
    with short_errors():
        import keras

        import kft
        from kft.files import cache_folder

        from_user = os.environ.get("KFT_DATA")
        about: dict[str, Any] = {
            "kft": kft.__version__,
            "python": platform.python_version(),
            "system": platform.platform(),
            "backend": keras.backend.backend(),
            "versions": {name: _version(name) for name in PACKAGES},
            "devices": _devices(),
            "threads": {
                "processors": os.cpu_count(),
                "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
            },
            "memory_bytes": _memory(),
            "caches": {
                "kft": _cache(cache_folder()),
                "hub": _cache(_hub_cache()),
                "data": None if from_user is None else _cache(Path(from_user)),
            },
            "hub_reachable": _reachable() if hub else None,
        }
        show(about, as_json, _text(about))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> list[str]:
    import keras

    try:
        return [str(x) for x in keras.distribution.list_devices()]
    except AttributeError:  # PyTorch, where Keras has no such list
        return [str(keras.ops.zeros(1).device)]


def _memory() -> int:
    import psutil

    return psutil.virtual_memory().total


def _hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _cache(folder: Path) -> dict[str, Any]:
    files = [x for x in folder.rglob("*") if x.is_file() and not x.is_symlink()]
    return {"folder": str(folder), "bytes": sum(x.stat().st_size for x in files)}


def _reachable() -> bool:
    """Whether the hub answers within five seconds."""
    import urllib.error
    import urllib.request

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=5):
            return True
    except urllib.error.HTTPError:
        return True  # it has answered
    except OSError:
        return False


def _text(about: dict[str, Any]) -> str:
    found = [f"{name} {x}" for name, x in about["versions"].items() if x is not None]
    missing = [name for name, x in about["versions"].items() if x is None]
    threads, memory = about["threads"], about["memory_bytes"] / 2**30
    reachable = {True: "reachable", False: "not reachable", None: "not asked"}
    rows = [
        ("kft", about["kft"]),
        ("python", f"{about['python']}, {about['system']}"),
        ("backend", f"{about['backend']} (KERAS_BACKEND={os.environ.get('KERAS_BACKEND')})"),
        ("versions", ", ".join(found)),
        ("absent", ", ".join(missing) or "none"),
        ("devices", ", ".join(about["devices"])),
        ("threads", f"{threads['processors']}, OMP_NUM_THREADS={threads['OMP_NUM_THREADS']}"),
        ("memory", f"{memory:.1f} GiB"),
    ]
    for name, cache in about["caches"].items():
        if cache is not None:
            rows.append((f"{name} cache", f"{cache['folder']}, {cache['bytes'] / 1e6:,.0f} MB"))
    rows.append(("hub", reachable[about["hub_reachable"]]))
    return "\n".join(f"{name:<11}{value}" for name, value in rows)
