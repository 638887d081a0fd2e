"""Ensembles of vision transformers under Hugging Face's Trainer: columns, labels and the loss are as it has them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from bayes_share.inference import parameter_groups
from bayes_share.sharing import ensemble

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

MEMBERS, SIDE = 3, 8


class Pictures(Dataset):
    """Noise; of class 1 with a brighter left half."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.randint(2, (count,), generator=generator)
        self.pixels = torch.randn(count, 3, SIDE, SIDE, generator=generator)
        self.pixels[self.labels == 1, :, :, : SIDE // 2] += 1.0

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"pixel_values": self.pixels[i], "labels": self.labels[i]}


def examples_first(outputs: Any, labels: Tensor) -> Tensor:
    logits: Tensor = outputs[0] if isinstance(outputs, tuple) else outputs
    return logits.transpose(0, 1)


def test_a_vision_transformer_learns_under_trainer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=SIDE, patch_size=4,
        num_labels=2,
    )  # fmt: skip
    train, test = Pictures(400, seed=0), Pictures(200, seed=1)
    members = ensemble(
        transformers.ViTForImageClassification(config),
        MEMBERS,
        "random_sign",
        example={"pixel_values": train.pixels[:2]},
    )
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), num_train_epochs=4, per_device_train_batch_size=20, per_device_eval_batch_size=100,
        remove_unused_columns=False, label_names=["labels"], use_cpu=True, save_strategy="no", report_to=[],
        logging_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(parameter_groups(members, learning_rate=2e-3, weight_decay=0.01))
    trainer = transformers.Trainer(
        model=members,
        args=arguments,
        train_dataset=train,
        eval_dataset=test,
        optimizers=(optimizer, None),
        preprocess_logits_for_metrics=examples_first,
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    found = trainer.predict(test)
    assert found.predictions.shape == (200, MEMBERS, 2)
    # The loss is the mean over the members, each with its own.
    each = torch.nn.functional.cross_entropy(
        torch.tensor(found.predictions).flatten(0, 1), test.labels.repeat_interleave(MEMBERS)
    )
    assert found.metrics["test_loss"] == pytest.approx(float(each), rel=1e-4)
    assert found.metrics["test_loss"] < 0.3 < before
    probs = torch.tensor(found.predictions).softmax(-1).mean(1)
    assert (probs.argmax(1) == test.labels).float().mean() > 0.9
    assert len({row.tobytes() for row in found.predictions.transpose(1, 0, 2)}) == MEMBERS
