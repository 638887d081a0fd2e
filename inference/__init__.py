"""Inference algorithms behind one contract."""

from bayes_share.inference.base import Batch, Build, Forward, Inference, State, StepInfo
from bayes_share.inference.deep_ensemble import DeepEnsemble
from bayes_share.inference.execution import Execution
from bayes_share.inference.fit import Training, fit, fit_tensors
from bayes_share.inference.map import MAP
from bayes_share.inference.nuts import NUTS
from bayes_share.inference.predict import predict
from bayes_share.inference.sghmc import SGHMC

ALGORITHMS: dict[str, type] = {"map": MAP, "deep-ensemble": DeepEnsemble, "sghmc": SGHMC, "nuts": NUTS}
"""The algorithms by their names on the command line."""

__all__ = [
    "ALGORITHMS",
    "MAP",
    "NUTS",
    "SGHMC",
    "Batch",
    "Build",
    "DeepEnsemble",
    "Execution",
    "Forward",
    "Inference",
    "State",
    "StepInfo",
    "Training",
    "fit",
    "fit_tensors",
    "predict",
]
