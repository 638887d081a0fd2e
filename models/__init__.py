"""Networks, likelihoods, and `Model`, which combines a network with a likelihood and priors."""

from typing import Any

from bayes_share.errors import no_attribute
from bayes_share.models.lenet import lenet
from bayes_share.models.likelihoods import Bernoulli, Categorical, Gaussian, Likelihood, Poisson, StudentT
from bayes_share.models.mlp import deep_mlp, mlp
from bayes_share.models.model import Model
from bayes_share.models.networks import build_network, network_names
from bayes_share.models.predictive import Predictive
from bayes_share.models.resnet import cifar_resnet, resnet18, resnet20, resnet32, resnet56, resnet110
from bayes_share.models.table_networks import build_table_network, table_network_names
from bayes_share.models.vgg import vgg11
from bayes_share.models.wide_resnet import wide_resnet

__all__ = [
    "Bernoulli",
    "Categorical",
    "Gaussian",
    "Likelihood",
    "Model",
    "Poisson",
    "Predictive",
    "StudentT",
    "build_network",
    "build_table_network",
    "cifar_resnet",
    "deep_mlp",
    "lenet",
    "mlp",
    "network_names",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet56",
    "resnet110",
    "table_network_names",
    "vgg11",
    "wide_resnet",
]


def __getattr__(name: str) -> Any:
    raise no_attribute(__name__, name, __all__)
