"""Train an ensemble on scikit-learn's digits in a custom training loop, and write a report.

    python examples/own_loop.py

Shows parameter groups, gradient clipping, bfloat16, a moving average of the parameters, saving and loading. Takes less
than a minute on one core. Writes members.pt and digits.html into a temporary folder and prints the path of the report.
"""

import tempfile
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bayes_share import Ensemble, Predictions, ensemble, evaluate, parameter_groups, report

MEMBERS, EPOCHS, BATCH = 4, 30, 64


def make(example: Tensor) -> Ensemble:
    """Make an untrained ensemble. The example input determines its strategy before the optimizer is created."""
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    return ensemble(net, MEMBERS, init="random_sign", example=example)


def train(members: Ensemble, x: Tensor, y: Tensor) -> AveragedModel:
    """Train in place, and return the moving average of the parameters."""
    groups = parameter_groups(members, learning_rate=3e-3, weight_decay=1e-2, factor_rate=0.5)
    optimizer = torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    average = AveragedModel(members, multi_avg_fn=get_ema_multi_avg_fn(0.98), use_buffers=True)
    members.train()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(BATCH):
            with torch.autocast("cpu", torch.bfloat16):
                logits = members(x[rows])  # [member, batch, class]
            targets = y[rows].expand(MEMBERS, -1)
            loss = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())  # the mean over the members
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(members.parameters(), max_norm=1.0)
            optimizer.step()
            average.update_parameters(members)
        schedule.step()
    return average


def predict(members: nn.Module, x: Tensor) -> Tensor:
    """Return logits ``[member, image, class]``."""
    with torch.no_grad():
        return torch.cat([members(part) for part in x.split(500)], dim=1)


def main() -> None:
    """Train, save, load, write a report, and check the accuracy."""
    torch.manual_seed(0)
    folder = Path(tempfile.mkdtemp())
    images, labels = load_digits(return_X_y=True)
    split = train_test_split(images, labels, test_size=0.2, random_state=0, stratify=labels)
    train_x, test_x = (torch.tensor(part, dtype=torch.float32).view(-1, 1, 8, 8) / 8 - 1 for part in split[:2])
    train_y, test_y = (torch.tensor(part) for part in split[2:])

    average = train(make(train_x[:2]), train_x, train_y)
    torch.save(average.module.state_dict(), folder / "members.pt")

    members = make(train_x[:2]).eval()
    members.load_state_dict(torch.load(folder / "members.pt"))
    predictions = {"own loop": Predictions(predict(members, test_x), test_y)}
    print(evaluate(predictions))
    print(f"report: {report(predictions, folder / 'digits.html')}")

    accuracy = (predict(members, test_x).softmax(-1).mean(0).argmax(-1) == test_y).float().mean().item()
    if not accuracy > 0.95:
        raise SystemExit(f"the accuracy should be above 95 %, and is {accuracy:.1%}")


if __name__ == "__main__":
    main()
