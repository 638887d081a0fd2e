"""The training recipe of both TabM implementations and of the deep ensemble."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """One recipe for all data sets, chosen before looking at any results.

    Args:
        depth: the number of hidden layers.
        width: the number of units in a hidden layer.
        members: the number of members of TabM.
        networks: the number of networks of the deep ensemble.
        bins: the maximum number of bins of a number's embedding.
        dropout: the dropout probability after each hidden layer.
        learning_rate: the learning rate of AdamW.
        weight_decay: the weight decay of AdamW.
        clip_norm: the maximum norm of the gradient.
        batch_size: the batch size in rows.
        epochs: the maximum number of epochs.
        patience: the number of epochs without a lower validation NLL after which training stops.
        beta: the beta of the β-NLL loss for real-valued targets.
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
        """Return the options of ``bayes-share fit`` that all methods share."""
        return [
            *("--model", f"tabm{self.depth}_{self.width}", "--dropout", str(self.dropout)),
            *("--optimizer", "adamw", "--learning-rate", str(self.learning_rate), "--factor-rate", "1"),
            *("--weight-decay", str(self.weight_decay), "--schedule", "constant"),
            *("--clip-norm", str(self.clip_norm), "--batch-size", str(self.batch_size), "--last-batch", "pad"),
            *("--epochs", str(self.epochs), "--patience", str(self.patience), "--no-progress"),
        ]
