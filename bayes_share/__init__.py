"""bayes_share: Bayesian deep learning with shared weights.

Each use of a base weight, by a member, layer or block, has two rank-1 factors of its own. The public names are imported
on first use, so that ``import bayes_share`` and ``bayes-share --help`` are fast.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

# In a clone that is not installed, `models`, `inference` and `evaluation` are siblings of this package, not inside it.
_root = Path(__file__).resolve().parent.parent
if (_root / "pyproject.toml").is_file() and str(_root) not in __path__:
    __path__.append(str(_root))

_PUBLIC = {
    "ensemble": "bayes_share.sharing.ensemble_conversion",
    "Ensemble": "bayes_share.sharing.members",
    "share_layers": "bayes_share.sharing.layer_sharing",
    "share_groups": "bayes_share.sharing.blocks",
    "packed": "bayes_share.baselines.packed_ensembles",
    "masked": "bayes_share.baselines.masksembles",
    "mimo": "bayes_share.baselines.multi_input",
    "describe_sharing": "bayes_share.sharing.description",
    "sharing_error": "bayes_share.sharing.description",
    "fold": "bayes_share.sharing.fold",
    "ledger": "bayes_share.sharing.ledger",
    "set_way": "bayes_share.layers.factored",
    "FactorInit": "bayes_share.layers.factors",
    "Rank1Linear": "bayes_share.layers.linear",
    "Rank1Conv2d": "bayes_share.layers.conv",
    "Model": "bayes_share.models.model",
    "Likelihood": "bayes_share.models.likelihoods",
    "Categorical": "bayes_share.models.likelihoods",
    "Gaussian": "bayes_share.models.likelihoods",
    "StudentT": "bayes_share.models.likelihoods",
    "Poisson": "bayes_share.models.likelihoods",
    "Bernoulli": "bayes_share.models.likelihoods",
    "load_run": "bayes_share.runs.loading",
    "load_data": "bayes_share.data",
    "load_table": "bayes_share.data.tables.load",
    "load_rows": "bayes_share.data.tables.load",
    "MAP": "bayes_share.inference.methods.map",
    "SVI": "bayes_share.inference.methods.svi.svi",
    "pyro_model": "bayes_share.models.program",
    "IVON": "bayes_share.inference.methods.ivon.ivon",
    "DeepEnsemble": "bayes_share.inference.methods.deep_ensemble",
    "Distill": "bayes_share.inference.methods.distill.distill",
    "MCDropout": "bayes_share.inference.methods.mc_dropout.mc_dropout",
    "SWAG": "bayes_share.inference.methods.swag",
    "LastLayerLaplace": "bayes_share.inference.methods.laplace.laplace",
    "reestimate_norms": "bayes_share.inference.draws.norms",
    "SGHMC": "bayes_share.inference.methods.sghmc",
    "SGLD": "bayes_share.inference.methods.sgld",
    "NUTS": "bayes_share.inference.methods.nuts.nuts",
    "fit": "bayes_share.inference.fit",
    "fit_tensors": "bayes_share.inference.fit",
    "Training": "bayes_share.inference.train",
    "parameter_groups": "bayes_share.inference.step.groups",
    "batches_of": "bayes_share.inference.batches.choice",
    "predict": "bayes_share.inference.predict",
    "predictive": "bayes_share.inference.predictive",
    "predict_arguments": "bayes_share.inference.predictive",
    "pointwise_log_lik": "bayes_share.inference.draws.pointwise",
    "posterior_samples": "bayes_share.inference.draws.posterior",
    "Outputs": "bayes_share.evaluation.predictions",
    "Predictions": "bayes_share.evaluation.predictions",
    "two_class_logits": "bayes_share.evaluation.binary",
    "NumberPredictions": "bayes_share.evaluation.number_predictions",
    "read_predictions": "bayes_share.evaluation.reading_predictions",
    "report": "bayes_share.reports.from_predictions",
    "evaluate": "bayes_share.reports.from_predictions",
    "score": "bayes_share.evaluation.scores",
    "select": "bayes_share.evaluation.selection",
    "uncertainty": "bayes_share.evaluation.uncertainty",
    "calibrate": "bayes_share.evaluation.posthoc",
    "fit_calibration": "bayes_share.evaluation.posthoc",
    "Calibration": "bayes_share.evaluation.posthoc",
    "conformal_sets": "bayes_share.evaluation.conformal.from_predictions",
    "conformal_intervals": "bayes_share.evaluation.conformal.from_predictions",
    "ood_scores": "bayes_share.evaluation.ood",
    "to_arviz": "bayes_share.evaluation.arviz_data",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise import_module("bayes_share.errors").no_attribute(__name__, name, _PUBLIC)
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*(name for name in globals() if name.startswith("__")), *_PUBLIC])
