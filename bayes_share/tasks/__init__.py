"""Tasks: what a run needs from its data, images or tables. The network's shape, the likelihood, and batches."""

from bayes_share.tasks.choice import check_options, is_table, spec_of, task_of
from bayes_share.tasks.contracts import DataSpec, NetworkChoice, NoiseChoice, Part, Task
from bayes_share.tasks.tables import TableSpec

__all__ = [
    "DataSpec",
    "NetworkChoice",
    "NoiseChoice",
    "Part",
    "TableSpec",
    "Task",
    "check_options",
    "is_table",
    "spec_of",
    "task_of",
]
