"""The published SAMs that `kft.load` finds by name, with the sizes of the original code.

Reference: `segment-anything` 1.0, `build_sam.py`. A name is that of the repository on the Hugging
Face hub without its owner.
"""

from typing import Any

OWNER = "facebook"

PUBLISHED: dict[str, dict[str, Any]] = {
    "sam-vit-base": {
        "num_blocks": 12,
        "width": 768,
        "num_heads": 12,
        "global_blocks": (2, 5, 8, 11),
    },
    "sam-vit-large": {
        "num_blocks": 24,
        "width": 1024,
        "num_heads": 16,
        "global_blocks": (5, 11, 17, 23),
    },
    "sam-vit-huge": {
        "num_blocks": 32,
        "width": 1280,
        "num_heads": 16,
        "global_blocks": (7, 15, 23, 31),
    },
}
