"""Presets: published recipes, as the options that differ from the defaults."""

from typing import Any

from bayes_share.errors import unknown

# Shen et al. 2024, arXiv 2402.17641: table 2 and the accompanying scripts, with three differences. The paper trains on
# all 50,000 images, its SGD uses plain rather than Nesterov momentum, and its learning rate changes once an epoch: it
# is 1/5, 2/5, ... of the maximum in the first 5 of 200 epochs, and then follows a half cosine over all 200 epochs,
# entered at epoch 5. Ours changes every step: it rises linearly for 5 epochs, and then follows a half cosine over the
# other 195 to 0. The two differ by up to 0.2 of the maximum in the first 5 epochs, and by up to 0.023 afterwards.
_IVON_PAPER = {
    "data": "cifar10",
    "model": "resnet20",
    "norm": "frn",
    "epochs": 200,
    "capture": "on",
    "batch_size": 50,
    "schedule": "cosine",
    "warmup": 0.025,
    "weight_decay": 2e-4,
}

# Dusenberry et al. 2020, arXiv 2005.07186, and the implementations of both networks in uncertainty-baselines: 128
# images for each member, and a learning rate that is divided by 5 after 100, 200 and 225 of 250 epochs. The weight
# decay is our choice.
_WIDE_RESNET = {
    "data": "cifar10",
    "model": "wide_resnet28_10",
    "ensemble_size": 4,
    "epochs": 250,
    "capture": "on",
    "batch_size": 128,
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "momentum": 0.9,
    "schedule": "step",
    "milestones": [0.4, 0.8, 0.9],
    "gamma": 0.2,
    "weight_decay": 5e-4,
}

# Gorishniy et al. 2024, arXiv 2410.24210: 32 perceptrons that share weights and differ in rank-1 factors. The first
# factor is drawn from N(0, 1), with one value for each column, and all others start at 1. Numerical inputs are
# embedded, each member has its own head, initialised independently, the loss is the mean over members, and AdamW has a
# constant learning rate, with early stopping after 16 epochs. The paper tunes learning rates and widths for each data
# set; these values are in the middle of its ranges. The paper uses the squared error; here the network predicts the
# noise of real-valued targets.
_TABM = {
    "model": "tabm",
    "dropout": 0.1,
    "ensemble_size": 32,
    "init": "first.r=standard_normal,head=fresh,*=ones",
    "own": ["head"],
    "optimizer": "adamw",
    "learning_rate": 0.002,
    "factor_rate": 1.0,
    "weight_decay": 3e-4,
    "schedule": "constant",
    "clip_norm": 1.0,
    "batch_size": 256,
    "last_batch": "pad",
    "epochs": 200,
    "patience": 16,
}

PRESETS: dict[str, dict[str, Any]] = {
    "ivon-cifar10": {
        "algorithm": "ivon",
        **_IVON_PAPER,
        "learning_rate": 0.2,
        "hess_init": 0.5,
        "beta1": 0.9,
        "beta2": 0.99999,
        "ess": 50_000.0,
        "samples": 1,
        "hess_approx": "price",
        "num_samples": 64,
    },
    "sgd-cifar10": {"algorithm": "map", "optimizer": "sgd", **_IVON_PAPER, "learning_rate": 0.2, "momentum": 0.9},
    "adamw-cifar10": {"algorithm": "map", "optimizer": "adamw", **_IVON_PAPER, "learning_rate": 0.002},
    "batch-ensemble-cifar10": {
        "algorithm": "map",
        **_WIDE_RESNET,
        "init": "random_sign",  # published: N(1, 0.5²), with which members became near copies (docs/results.md)
        "factor_rate": 0.5,
    },
    "rank1-cifar10": {
        "algorithm": "svi",
        **_WIDE_RESNET,
        "init": "random_sign",
        "latent": "factors",
        "factor_prior": "normal",
        "factor_prior_scale": 0.1,
        "factor_prior_centre": "one",
        "initial_scale": 0.032,
        "factor_rate": 1.0,
        "kl_warmup": 0.8,
        "num_samples": 4,
    },
    "tabm": {"algorithm": "map", **_TABM},
}
"""The options of each preset, by their names on the command line; see `from_flat`."""

SUMMARIES: dict[str, str] = {
    "ivon-cifar10": "IVON on CIFAR-10 (ResNet-20, filter response norm, 200 epochs), 64 draws for predictions; "
    "the learning rate changes every step, not every epoch as in the paper's scripts",
    "sgd-cifar10": "SGD with the network, data and epochs of ivon-cifar10",
    "adamw-cifar10": "AdamW with the network, data and epochs of ivon-cifar10",
    "batch-ensemble-cifar10": "BatchEnsemble of 4 wide ResNets 28-10 on CIFAR-10, 250 epochs, "
    "from random signs (published: N(1, 0.5²))",
    "rank1-cifar10": "Rank-1 Bayesian network of 4 members, on the same network: normal factors with the prior "
    "N(1, 0.1²)",
    "tabm": "TabM for tables, 32 perceptrons that share weights: give --data csv:FILE --target COLUMN",
}
"""A one-line description of each preset, for the help."""


def preset(name: str) -> dict[str, Any]:
    """Return the options of a preset.

    Raises:
        InputError: if the name is unknown; the message suggests the closest one.
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return dict(PRESETS[name])
