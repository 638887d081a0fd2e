"""An ensemble on photographs."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bayes_share.sharing import ensemble

MEMBERS = 4


def test_an_ensemble_learns_real_images(cifar10_images: tuple[np.ndarray, np.ndarray]) -> None:
    pixels, numbers = cifar10_images
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    images = (images - images.mean((0, 2, 3), keepdim=True)) / images.std((0, 2, 3), keepdim=True)
    labels = torch.from_numpy(numbers).long()
    assert images.shape == (512, 3, 32, 32)
    assert set(labels.tolist()) == set(range(10))

    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=2, padding=2),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.GroupNorm(4, 32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(512, 10),
    ).eval()
    copies = ensemble(net, MEMBERS, init="ones")(images)
    torch.testing.assert_close(copies, net(images).expand(MEMBERS, -1, -1), rtol=1e-4, atol=1e-5)

    members = ensemble(net, MEMBERS, norm="member", init="normal").train()
    optimiser = torch.optim.SGD(members.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for step in range(32):
        part = slice(128 * (step % 4), 128 * (step % 4 + 1))
        logits = members(images[part])
        loss = F.cross_entropy(logits.flatten(0, 1), labels[part].repeat(MEMBERS))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])

    with torch.no_grad():
        probabilities = members.eval()(images).softmax(-1)
    right = (probabilities.argmax(-1) == labels).float().mean(1)
    assert right.shape == (MEMBERS,)
    assert right.min() > 0.4
    disagreement = (probabilities.argmax(-1) != probabilities.mean(0).argmax(-1)).float().mean()
    assert 0.005 < disagreement < 0.5
