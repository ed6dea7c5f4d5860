"""Strategies: which layers are trainable, in which phases and how fast. `kft.fit` runs them.

From cheap to expensive: linear_probe, head_only, last_blocks, gradual_unfreezing, lora, full;
from_scratch is the control that shows whether pre-training helped. `AsMarked` chooses nothing: the
layers that are marked trainable are trained.

`strategy.prepare(model)` returns the model with what the strategy needs: `lora` adds adapters,
`from_scratch` returns a re-initialised copy, the others return the model as it is.
`strategy.phases(model)` lists the phases of a prepared model and changes nothing;
`phase.mark(model)` marks the layers of one phase. A strategy of your own derives from `Strategy`.
"""

from kft.training.strategies.adapters import LoRA
from kft.training.strategies.as_marked import AsMarked
from kft.training.strategies.blocks import Full, GradualUnfreezing, LastBlocks
from kft.training.strategies.head import HeadOnly, LinearProbe
from kft.training.strategies.parts import IoUHead, MaskDecoder, PartOnly, PromptAndDecoder
from kft.training.strategies.phases import Phase
from kft.training.strategies.registry import (
    Strategy,
    check_strategy,
    get,
    name_of,
    names,
    register,
    unregister,
)
from kft.training.strategies.scratch import FromScratch

# From the control to the most expensive, which is the order of `names()`.
for _name, _kind in {
    "from_scratch": FromScratch,
    "linear_probe": LinearProbe,
    "head_only": HeadOnly,
    "last_blocks": LastBlocks,
    "gradual_unfreezing": GradualUnfreezing,
    "lora": LoRA,
    "full": Full,
}.items():
    register(_name)(_kind)
for _name, _kind in {
    "iou_head": IoUHead,
    "mask_decoder": MaskDecoder,
    "prompt_and_decoder": PromptAndDecoder,
}.items():
    register(_name, of_part=True)(_kind)

__all__ = [
    "AsMarked",
    "FromScratch",
    "Full",
    "GradualUnfreezing",
    "HeadOnly",
    "IoUHead",
    "LastBlocks",
    "LinearProbe",
    "LoRA",
    "MaskDecoder",
    "PartOnly",
    "Phase",
    "PromptAndDecoder",
    "Strategy",
    "check_strategy",
    "get",
    "name_of",
    "names",
    "register",
    "unregister",
]
