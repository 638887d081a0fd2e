"""Other kinds of efficient ensembles, for comparison: packed ensembles, Masksembles and MIMO."""

from bayes_share.baselines.masksembles import masked
from bayes_share.baselines.multi_input import Mimo, mimo
from bayes_share.baselines.packed_ensembles import packed

__all__ = ["Mimo", "masked", "mimo", "packed"]
