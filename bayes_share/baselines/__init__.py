"""Other ways to make a network several: packed ensembles, Masksembles and MIMO, to compare with."""

from bayes_share.baselines.masksembles import masked
from bayes_share.baselines.multi_input import Mimo, mimo
from bayes_share.baselines.packed_ensembles import packed

__all__ = ["Mimo", "masked", "mimo", "packed"]
