"""Fine-tunings in folders: a run holds all that it takes to use it and to repeat it.

`finetune` makes a run from a file and a few settings; `Run` opens its folder.
"""

from kft.finetuning.folder import Run, is_run, trained_model
from kft.finetuning.models import backbone_name, described, new_backbone, new_head
from kft.finetuning.planning import Plan, plan
from kft.finetuning.reading import filled, read_data
from kft.finetuning.settings import Settings
from kft.finetuning.tuning import finetune

__all__ = [
    "Plan",
    "Run",
    "Settings",
    "backbone_name",
    "described",
    "filled",
    "finetune",
    "is_run",
    "new_backbone",
    "new_head",
    "plan",
    "read_data",
    "trained_model",
]
