"""The inference algorithms, one file or folder each, and the table of their names."""

from typing import Any

from bayes_share.inference.algorithm import Inference
from bayes_share.inference.methods.deep_ensemble import DeepEnsemble
from bayes_share.inference.methods.distill.distill import Distill
from bayes_share.inference.methods.ivon.ivon import IVON
from bayes_share.inference.methods.laplace.laplace import LastLayerLaplace
from bayes_share.inference.methods.map import MAP
from bayes_share.inference.methods.mc_dropout.mc_dropout import MCDropout
from bayes_share.inference.methods.nuts.nuts import NUTS
from bayes_share.inference.methods.sghmc import SGHMC
from bayes_share.inference.methods.sgld import SGLD
from bayes_share.inference.methods.svi.svi import SVI
from bayes_share.inference.methods.swag import SWAG

ALGORITHMS: dict[str, type[Inference[Any]]] = {
    "map": MAP,
    "svi": SVI,
    "ivon": IVON,
    "deep-ensemble": DeepEnsemble,
    "distill": Distill,
    "mc-dropout": MCDropout,
    "swag": SWAG,
    "laplace": LastLayerLaplace,
    "sghmc": SGHMC,
    "sgld": SGLD,
    "nuts": NUTS,
}
"""The algorithms by their names on the command line."""

__all__ = [
    "ALGORITHMS",
    "IVON",
    "MAP",
    "NUTS",
    "SGHMC",
    "SGLD",
    "SVI",
    "SWAG",
    "DeepEnsemble",
    "Distill",
    "LastLayerLaplace",
    "MCDropout",
]
