"""What both kinds of TabM, and the deep ensemble, are trained by."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """One recipe for all sets, chosen before any was looked at.

    Args:
        depth: hidden layers.
        width: units of each.
        members: of TabM.
        networks: of the deep ensemble.
        bins: of a number's embedding, at most.
        dropout: after each hidden layer.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        clip_norm: of the gradient.
        batch_size: rows in a step.
        epochs: at most.
        patience: epochs without a lower validation NLL.
        beta: of the loss of numbers.
    """

    depth: int = 2
    width: int = 128
    members: int = 32
    networks: int = 4
    bins: int = 48
    dropout: float = 0.1
    learning_rate: float = 2e-3
    weight_decay: float = 3e-4
    clip_norm: float = 1.0
    batch_size: int = 256
    epochs: int = 60
    patience: int = 16
    beta: float = 0.5

    def options(self) -> list[str]:
        """Of ``bayes-share fit``, whatever the method."""
        return [
            *("--model", f"tabm{self.depth}_{self.width}", "--dropout", str(self.dropout)),
            *("--optimizer", "adamw", "--learning-rate", str(self.learning_rate), "--factor-rate", "1"),
            *("--weight-decay", str(self.weight_decay), "--schedule", "constant"),
            *("--clip-norm", str(self.clip_norm), "--batch-size", str(self.batch_size), "--last-batch", "pad"),
            *("--epochs", str(self.epochs), "--patience", str(self.patience), "--no-progress"),
        ]
