"""What a run asks of its data, of whatever kind: the network's shape, the likelihood, and batches."""

from bayes_share.tasks.choice import check_options, form_of, is_table, task_of
from bayes_share.tasks.form import Form, NetworkChoice, NoiseChoice, Part, Task
from bayes_share.tasks.tables import TableForm

__all__ = [
    "Form",
    "NetworkChoice",
    "NoiseChoice",
    "Part",
    "TableForm",
    "Task",
    "check_options",
    "form_of",
    "is_table",
    "task_of",
]
