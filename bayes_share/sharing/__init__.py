"""Sharing base weights between the members of an ensemble, the layers of a network, and the blocks of a layer."""

from bayes_share.sharing.blocks import Along, Indivisible, share_groups
from bayes_share.sharing.description import describe_sharing, sharing_error
from bayes_share.sharing.ensemble_conversion import ensemble
from bayes_share.sharing.fold import fold
from bayes_share.sharing.kinds import ParameterKind, members_equal, parameter_kinds
from bayes_share.sharing.layer_sharing import LayerFactors, NormOfLayers, share_layers
from bayes_share.sharing.ledger import Ledger, ledger
from bayes_share.sharing.member_selection import take_member
from bayes_share.sharing.members import Ensemble
from bayes_share.sharing.members_interface import Feed, Members
from bayes_share.sharing.module_names import NormSharing
from bayes_share.sharing.partners import Which
from bayes_share.sharing.starts import Start
from bayes_share.sharing.strategy import Strategy

__all__ = [
    "Along",
    "Ensemble",
    "Feed",
    "Indivisible",
    "LayerFactors",
    "Ledger",
    "Members",
    "NormOfLayers",
    "NormSharing",
    "ParameterKind",
    "Start",
    "Strategy",
    "Which",
    "describe_sharing",
    "ensemble",
    "fold",
    "ledger",
    "members_equal",
    "parameter_kinds",
    "share_groups",
    "share_layers",
    "sharing_error",
    "take_member",
]
