"""Published recipes by name, as the options that differ from the defaults."""

from typing import Any

from bayes_share.errors import unknown

# Shen et al. 2024, arXiv 2402.17641: table 2 and the scripts that go with it. Theirs trains on all 50,000 images, and
# its SGD has plain momentum, not Nesterov's.
_IVON_PAPER = {
    "data": "cifar10",
    "model": "resnet20",
    "norm": "frn",
    "epochs": 200,
    "batch_size": 50,
    "schedule": "cosine",
    "warmup": 0.025,
    "weight_decay": 2e-4,
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
}
"""Options by their names on the command line, as `RunConfig.from_flat` takes them."""

SUMMARIES: dict[str, str] = {
    "ivon-cifar10": "IVON on CIFAR-10 (ResNet-20, Filter Response Norm, 200 epochs), predicting with 64 draws",
    "sgd-cifar10": "SGD beside it, with the same network, data and epochs",
    "adamw-cifar10": "AdamW beside it, with the same network, data and epochs",
}
"""What each preset is, in one line."""


def preset(name: str) -> dict[str, Any]:
    """The options of a preset.

    Raises:
        InputError: there is none of this name; names the nearest.
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return dict(PRESETS[name])
