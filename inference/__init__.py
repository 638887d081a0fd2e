"""Inference algorithms behind one contract."""

from bayes_share.inference.algorithm import Batch, Build, Forward, Inference, Part, State, StepInfo
from bayes_share.inference.draws.factors import factor_draws
from bayes_share.inference.draws.features import predict_with_features
from bayes_share.inference.draws.norms import reestimate_norms
from bayes_share.inference.draws.pointwise import pointwise_log_lik
from bayes_share.inference.draws.posterior import posterior_samples
from bayes_share.inference.draws.thinning import chain_order
from bayes_share.inference.execution import Execution
from bayes_share.inference.fit import fit, fit_tensors
from bayes_share.inference.methods.deep_ensemble import DeepEnsemble
from bayes_share.inference.methods.ivon.ivon import IVON
from bayes_share.inference.methods.laplace.laplace import LastLayerLaplace
from bayes_share.inference.methods.map import MAP
from bayes_share.inference.methods.mc_dropout.mc_dropout import MCDropout
from bayes_share.inference.methods.nuts.nuts import NUTS
from bayes_share.inference.methods.sghmc import SGHMC
from bayes_share.inference.methods.svi.guides import Guide
from bayes_share.inference.methods.svi.svi import SVI
from bayes_share.inference.methods.swag import SWAG
from bayes_share.inference.predict import predict, predict_draws
from bayes_share.inference.train import Training

ALGORITHMS: dict[str, type] = {
    "map": MAP,
    "svi": SVI,
    "ivon": IVON,
    "deep-ensemble": DeepEnsemble,
    "mc-dropout": MCDropout,
    "swag": SWAG,
    "laplace": LastLayerLaplace,
    "sghmc": SGHMC,
    "nuts": NUTS,
}
"""The algorithms by their names on the command line."""

__all__ = [
    "ALGORITHMS",
    "IVON",
    "MAP",
    "NUTS",
    "SGHMC",
    "SVI",
    "SWAG",
    "Batch",
    "Build",
    "DeepEnsemble",
    "Execution",
    "Forward",
    "Guide",
    "Inference",
    "LastLayerLaplace",
    "MCDropout",
    "Part",
    "State",
    "StepInfo",
    "Training",
    "chain_order",
    "factor_draws",
    "fit",
    "fit_tensors",
    "pointwise_log_lik",
    "posterior_samples",
    "predict",
    "predict_draws",
    "predict_with_features",
    "reestimate_norms",
]
