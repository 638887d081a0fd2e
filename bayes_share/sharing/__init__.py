"""Who shares a base weight: so far, the members of an ensemble."""

from bayes_share.sharing.kinds import ParameterKind, members_equal, parameter_kinds
from bayes_share.sharing.members import Ensemble, Feed, NormSharing, ensemble

__all__ = ["Ensemble", "Feed", "NormSharing", "ParameterKind", "ensemble", "members_equal", "parameter_kinds"]
