"""SAM, "Segment Anything" (Kirillov et al. 2023): masks of what points, boxes or masks show."""

from kft.backbones.sam import family
from kft.backbones.sam.images import SamImages, sizes_within
from kft.backbones.sam.model import Sam
from kft.backbones.sam.names import original_name
from kft.backbones.sam.published import PUBLISHED

__all__ = ["PUBLISHED", "Sam", "SamImages", "family", "original_name", "sizes_within"]
