"""Train an ensemble of four as a LightningModule on scikit-learn's digits, and write a report.

    python examples/lightning_module.py

Requires lightning, which runs the training loop: epochs, validation and the best checkpoint. Writes report.html into a
temporary folder and prints its path.
"""

import logging
import tempfile
import warnings
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

from bayes_share import Predictions, ensemble, evaluate, parameter_groups, report

MEMBERS = 4
Batch = tuple[Tensor, Tensor]


class Digits(lightning.LightningModule):
    """Trains every member on every batch, and validates the mixture of the members."""

    def __init__(self) -> None:
        super().__init__()
        net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
        self.members = ensemble(net, MEMBERS, init="random_sign", example=torch.zeros(2, 64))

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Return the mean of the members' losses."""
        x, y = batch
        logits = self.members(x)
        return F.cross_entropy(logits.flatten(0, 1), y.expand(MEMBERS, -1).flatten())

    def validation_step(self, batch: Batch, _: int) -> None:
        """Log the NLL of the members' mean probabilities."""
        x, y = batch
        self.log("validation_nll", F.nll_loss(self.members(x).softmax(-1).mean(0).log(), y))

    def predict_step(self, batch: Batch, _: int) -> Tensor:
        """Return logits ``[member, image, class]``."""
        logits: Tensor = self.members(batch[0])
        return logits

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW with parameter groups, one of them for the factors."""
        return torch.optim.AdamW(parameter_groups(self.members, learning_rate=3e-3, weight_decay=0.01))


def main() -> None:
    """Train, load the best checkpoint, write a report, and check that the digits were learned."""
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    lightning.seed_everything(0, verbose=False)
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    x, y = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(x, dtype=torch.float32) / 8 - 1, torch.tensor(y))
    train, validation, test = random_split(data, [1200, 200, 397])
    best = ModelCheckpoint(folder, monitor="validation_nll")
    trainer = lightning.Trainer(
        max_epochs=15, accelerator="cpu", callbacks=[best], logger=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    module = Digits()
    trainer.fit(module, DataLoader(train, 64, shuffle=True), DataLoader(validation, 200))
    module.load_state_dict(torch.load(best.best_model_path, weights_only=True)["state_dict"])
    predicted = trainer.predict(module, DataLoader(test, 100))
    assert predicted is not None
    labels = torch.stack([label for _, label in test])
    mine = Predictions(torch.cat(predicted, dim=1), labels)  # type: ignore[arg-type]
    print(evaluate(mine))
    print(f"report: {report(mine, folder / 'report.html')}")
    right = mine.logits.softmax(-1).mean((0, 1)).argmax(-1) == labels
    if right.float().mean() < 0.95:
        raise SystemExit(f"accuracy {right.float().mean():.1%}: it should be above 95 %")


if __name__ == "__main__":
    main()
