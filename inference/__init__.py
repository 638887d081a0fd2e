"""Inference algorithms with a common interface."""

from typing import Any

from bayes_share.errors import no_attribute
from bayes_share.inference.algorithm import Batch as Batch
from bayes_share.inference.algorithm import Build as Build
from bayes_share.inference.algorithm import Forward as Forward
from bayes_share.inference.algorithm import Inference as Inference
from bayes_share.inference.algorithm import Part as Part
from bayes_share.inference.algorithm import State as State
from bayes_share.inference.algorithm import StepInfo as StepInfo
from bayes_share.inference.batches.choice import batches_of as batches_of
from bayes_share.inference.draws.factors import factor_draws as factor_draws
from bayes_share.inference.draws.features import predict_with_features as predict_with_features
from bayes_share.inference.draws.norms import reestimate_norms as reestimate_norms
from bayes_share.inference.draws.pointwise import pointwise_log_lik as pointwise_log_lik
from bayes_share.inference.draws.posterior import posterior_samples as posterior_samples
from bayes_share.inference.draws.thinning import chain_order as chain_order
from bayes_share.inference.execution import Execution as Execution
from bayes_share.inference.fit import fit as fit
from bayes_share.inference.fit import fit_tensors as fit_tensors
from bayes_share.inference.methods import *  # noqa: F403 (each algorithm, and their table)
from bayes_share.inference.methods.svi.guides import Guide as Guide
from bayes_share.inference.predict import predict as predict
from bayes_share.inference.predict import predict_draws as predict_draws
from bayes_share.inference.predictive import predict_arguments as predict_arguments
from bayes_share.inference.predictive import predictive as predictive
from bayes_share.inference.step.drivers import take_step as take_step
from bayes_share.inference.step.groups import parameter_groups as parameter_groups
from bayes_share.inference.step.steps import Steps as Steps
from bayes_share.inference.step.updates import Descent as Descent
from bayes_share.inference.train import Training as Training


def __getattr__(name: str) -> Any:
    raise no_attribute(__name__, name, globals())
