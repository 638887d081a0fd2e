"""Likelihoods: distributions of the targets given a network's outputs."""

from bayes_share.models.likelihoods.base import Likelihood as Likelihood
from bayes_share.models.likelihoods.base import Softened as Softened
from bayes_share.models.likelihoods.bernoulli import Bernoulli as Bernoulli
from bayes_share.models.likelihoods.categorical import Categorical as Categorical
from bayes_share.models.likelihoods.gaussian import Gaussian as Gaussian
from bayes_share.models.likelihoods.poisson import Poisson as Poisson
from bayes_share.models.likelihoods.student_t import StudentT as StudentT
