"""Low-rank adapters: LoRA, rsLoRA and DoRA on any Keras model, and PEFT's files of them."""

from kft.lora.adapting import add_lora, merge_lora, remove, unmerge_lora, use
from kft.lora.owned import names
from kft.lora.peft.files import load_adapter, save_adapter

__all__ = [
    "add_lora",
    "load_adapter",
    "merge_lora",
    "names",
    "remove",
    "save_adapter",
    "unmerge_lora",
    "use",
]
