"""Who shares a base weight: so far, the members of an ensemble."""

from bayes_share.sharing.conversion import NormSharing
from bayes_share.sharing.fold import fold
from bayes_share.sharing.kinds import ParameterKind, members_equal, parameter_kinds
from bayes_share.sharing.ledger import Ledger, ledger
from bayes_share.sharing.members import Ensemble, Feed, ensemble
from bayes_share.sharing.strategy import Strategy
from bayes_share.sharing.take import take_member

__all__ = [
    "Ensemble",
    "Feed",
    "Ledger",
    "NormSharing",
    "ParameterKind",
    "Strategy",
    "ensemble",
    "fold",
    "ledger",
    "members_equal",
    "parameter_kinds",
    "take_member",
]
