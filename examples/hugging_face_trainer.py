"""Train a tiny BERT as an ensemble of four with Hugging Face's Trainer, and write a report.

    python examples/hugging_face_trainer.py

Requires transformers and accelerate. The sentences are synthetic: the class is which of two words comes first. Writes
report.html into a temporary folder and prints its path.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from bayes_share import Predictions, ensemble, evaluate, parameter_groups, report

MEMBERS, WORDS, LENGTH = 4, 40, 16
RED, BLUE, PADDING = 5, 6, 0


class Sentences(Dataset):
    """Token ids of sentences of different lengths, with attention masks and classes."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.words = torch.randint(7, WORDS, (count, LENGTH), generator=generator)
        self.labels = torch.randint(2, (count,), generator=generator)
        lengths = torch.randint(6, LENGTH + 1, (count,), generator=generator)
        self.mask = (torch.arange(LENGTH) < lengths[:, None]).long()
        places = torch.stack([torch.randperm(6, generator=generator)[:2].sort().values for _ in range(count)])
        rows = torch.arange(count)
        self.words[rows, places[:, 0]] = torch.where(self.labels == 1, RED, BLUE)
        self.words[rows, places[:, 1]] = torch.where(self.labels == 1, BLUE, RED)
        self.words[self.mask == 0] = PADDING

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"input_ids": self.words[i], "attention_mask": self.mask[i], "labels": self.labels[i]}


def examples_first(outputs: Any, labels: Tensor) -> Tensor:
    """Return logits ``[example, member, class]``, since Trainer concatenates batches along the first axis."""
    logits: Tensor = outputs[0] if isinstance(outputs, tuple) else outputs
    return logits.transpose(0, 1)


def main() -> None:
    """Train, evaluate, write a report, and check that the classes were learned."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    config = BertConfig(
        vocab_size=WORDS, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=LENGTH, num_labels=2,
    )  # fmt: skip
    train, test = Sentences(4000, seed=0), Sentences(500, seed=1)
    example = {name: value[None].expand(2, -1) for name, value in train[0].items() if name != "labels"}
    members = ensemble(BertForSequenceClassification(config), MEMBERS, init="random_sign", example=example)
    arguments = TrainingArguments(
        output_dir=str(folder), num_train_epochs=6, per_device_train_batch_size=32, per_device_eval_batch_size=250,
        remove_unused_columns=False, label_names=["labels"], use_cpu=True, save_strategy="no", report_to=[],
        logging_strategy="no", disable_tqdm=True, lr_scheduler_type="cosine",
    )  # fmt: skip
    optimizer = torch.optim.AdamW(parameter_groups(members, learning_rate=2e-3, weight_decay=0.01))
    trainer = Trainer(
        model=members,
        args=arguments,
        train_dataset=train,
        optimizers=(optimizer, None),
        preprocess_logits_for_metrics=examples_first,
    )
    trainer.train()
    found = trainer.predict(test)  # type: ignore[arg-type]
    mine = Predictions(torch.tensor(found.predictions).transpose(0, 1), test.labels, class_names=("blue", "red"))
    print(evaluate(mine))
    print(f"report: {report(mine, folder / 'report.html')}")
    right = mine.logits.softmax(-1).mean((0, 1)).argmax(-1) == test.labels
    if right.float().mean() < 0.95:
        raise SystemExit(f"accuracy {right.float().mean():.1%}: it should be at least 95 %")


if __name__ == "__main__":
    main()
