import torch

from bayes_share.evaluation import Predictions


def make(draws: int = 2, members: int = 3, images: int = 200, classes: int = 5, seed: int = 0) -> Predictions:
    """Random predictions that are better than chance, with members that disagree."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (images,), generator=generator)
    logits = 2 * torch.randn(draws, members, images, classes, generator=generator)
    logits[..., torch.arange(images), labels] += 1.5
    return Predictions(logits, labels)
