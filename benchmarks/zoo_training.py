"""Convert, fold and fine-tune 24 networks of torchvision, timm and transformers as ensembles of four.

    python -m benchmarks.zoo_training

For each network, this reports the number of layers with factors; whether members are computed in one pass or one by
one, and why; the difference of a folded member from the member in float64; the training loss before and after 20 steps
of AdamW on one batch, for the ensemble and the plain network; and the time of a step relative to the plain network.
Weights are random, and nothing is downloaded. The networks of transformers are small (hidden size 64, two or three
layers).
"""

import argparse
import copy
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import get_model

from bayes_share import Ensemble, ensemble, fold, parameter_groups
from bayes_share.layers.factored import Factored
from benchmarks.report import about, table

MEMBERS, CLASSES, BATCH, STEPS, WORDS, TOKENS = 4, 5, 8, 20, 50, 12
Batch = Mapping[str, Tensor] | Tensor
Network = tuple[Callable[[], nn.Module], Callable[[], Batch]]


def images(size: int, name: str | None = None) -> Callable[[], Batch]:
    """Return a function that makes a batch of random images, as a dict if the network takes them by name."""

    def made() -> Batch:
        x = torch.randn(BATCH, 3, size, size)
        return x if name is None else {name: x}

    return made


def sentences() -> Batch:
    """Make a batch of sentences with random tokens and different lengths."""
    mask = (torch.arange(TOKENS) < torch.randint(4, TOKENS + 1, (BATCH, 1))).long()
    return {"input_ids": torch.randint(2, WORDS, (BATCH, TOKENS)) * mask, "attention_mask": mask}


def _torchvision(name: str, size: int, **options: Any) -> Network:
    return lambda: get_model(name, weights=None, num_classes=CLASSES, **options), images(size)


def _timm(name: str, size: int, **options: Any) -> Network:
    return lambda: timm.create_model(name, num_classes=CLASSES, **options), images(size)


def _transformers(config: str, network: str, batch: Callable[[], Batch], **options: Any) -> Network:
    def made() -> nn.Module:
        given = getattr(transformers, config)(num_labels=CLASSES, **options)
        return getattr(transformers, network)(given)

    return made, batch


_SMALL: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
_TEXT: dict[str, Any] = {**_SMALL, "vocab_size": WORDS, "pad_token_id": 0, "max_position_embeddings": 32}
_PIXELS = images(32, "pixel_values")

ZOO: dict[str, Network] = {
    "resnet18 (torchvision)": _torchvision("resnet18", 32),
    "resnext50_32x4d (torchvision)": _torchvision("resnext50_32x4d", 32),
    "densenet121 (torchvision)": _torchvision("densenet121", 32),
    "mobilenet_v2 (torchvision)": _torchvision("mobilenet_v2", 32),
    "efficientnet_b0 (torchvision)": _torchvision("efficientnet_b0", 32),
    "regnet_y_400mf (torchvision)": _torchvision("regnet_y_400mf", 32),
    "squeezenet1_1 (torchvision)": _torchvision("squeezenet1_1", 64),
    "swin_t (torchvision)": _torchvision("swin_t", 32),
    "convnextv2_atto (timm)": _timm("convnextv2_atto", 32),
    "deit_tiny_patch16_224 (timm)": _timm("deit_tiny_patch16_224", 32, img_size=32),
    "mixer_s32_224 (timm)": _timm("mixer_s32_224", 64, img_size=64),
    "mobilevit_xxs (timm)": _timm("mobilevit_xxs", 64),
    "efficientvit_b0 (timm)": _timm("efficientvit_b0", 32),
    "poolformer_s12 (timm)": _timm("poolformer_s12", 32),
    "ghostnet_050 (timm)": _timm("ghostnet_050", 32),
    "xcit_nano_12_p16_224 (timm)": _timm("xcit_nano_12_p16_224", 32, img_size=32),
    "BERT (transformers)": _transformers("BertConfig", "BertForSequenceClassification", sentences, **_TEXT),
    "RoBERTa (transformers)": _transformers(
        "RobertaConfig", "RobertaForSequenceClassification", sentences, **_TEXT | {"pad_token_id": 1}
    ),
    "DistilBERT (transformers)": _transformers(
        "DistilBertConfig",
        "DistilBertForSequenceClassification",
        sentences,
        dim=64,
        n_layers=2,
        n_heads=4,
        hidden_dim=128,
        vocab_size=WORDS,
        max_position_embeddings=32,
    ),
    "GPT-2 (transformers)": _transformers(
        "GPT2Config",
        "GPT2ForSequenceClassification",
        sentences,
        n_embd=64,
        n_layer=2,
        n_head=4,
        n_positions=32,
        vocab_size=WORDS,
        pad_token_id=0,
        use_cache=False,
        bos_token_id=1,
        eos_token_id=1,
    ),
    "Llama (transformers)": _transformers(
        "LlamaConfig", "LlamaForSequenceClassification", sentences, **_TEXT, num_key_value_heads=2, use_cache=False
    ),
    "ViT (transformers)": _transformers(
        "ViTConfig", "ViTForImageClassification", _PIXELS, **_SMALL, image_size=32, patch_size=8
    ),
    "ConvNeXt (transformers)": _transformers(
        "ConvNextConfig", "ConvNextForImageClassification", _PIXELS, hidden_sizes=[16, 32, 64], depths=[1, 1, 2],
        num_stages=3,
    ),
    "Swin (transformers)": _transformers(
        "SwinConfig", "SwinForImageClassification", _PIXELS, image_size=32, patch_size=2, embed_dim=16, depths=[1, 2],
        num_heads=[2, 4], window_size=4,
    ),
}  # fmt: skip
"""Functions that make a network and a batch for it, by name."""


def outputs_of(network: nn.Module, batch: Batch) -> Tensor:
    """Return the logits."""
    found = network(batch) if isinstance(batch, Tensor) else network(**batch)
    found = getattr(found, "logits", found)
    return found[0] if isinstance(found, tuple) else found


def loss_of(network: nn.Module, batch: Batch, y: Tensor) -> Tensor:
    """Return the mean cross-entropy over all members."""
    logits = outputs_of(network, batch)
    return F.cross_entropy(logits.flatten(0, -2), y.repeat(len(logits) if logits.ndim == 3 else 1))


@dataclass
class Tuned:
    """The training losses before and after the steps, and the mean seconds of a step in the second half."""

    before: float
    after: float
    seconds: float


def fine_tune(network: nn.Module, batch: Batch, y: Tensor) -> Tuned:
    """Take the steps in training mode, and measure the losses before the first and after the last."""
    network.train()
    optimizer = torch.optim.AdamW(parameter_groups(network, 5e-4, 0.01))
    losses, started = [], 0.0
    for step in range(STEPS + 1):
        if step == STEPS // 2:
            started = time.perf_counter()
        loss = loss_of(network, batch, y)
        losses.append(loss.item())
        if step < STEPS:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return Tuned(losses[0], losses[-1], (time.perf_counter() - started) / (STEPS - STEPS // 2))


def fold_error(members: Ensemble, batch: Batch) -> float:
    """Return the largest relative difference between folded members and the ensemble, in float64 and eval mode."""
    precise = copy.deepcopy(members).double().eval()
    x = batch.double() if isinstance(batch, Tensor) else {
        name: part.double() if part.is_floating_point() else part for name, part in batch.items()
    }  # fmt: skip
    in_place = outputs_of(precise, x).detach()  # with gradients, members are not folded
    with torch.no_grad():
        folded = torch.stack([outputs_of(fold(precise, member).eval(), x) for member in range(MEMBERS)])
    return float((folded - in_place).abs().max() / in_place.abs().max())


def row_of(name: str) -> list[str]:
    """Return a line of the table."""
    torch.manual_seed(0)
    make, make_batch = ZOO[name]
    net, batch, y = make(), make_batch(), torch.randint(CLASSES, (BATCH,))
    members = ensemble(net, MEMBERS, example=batch)
    layers = sum(isinstance(module, Factored) for module in members.modules())
    tuned, plain = fine_tune(members, batch, y), fine_tune(net, batch, y)
    error = fold_error(members, batch)
    reason = "" if members.strategy == "tile" else members.strategy_reason
    return [
        name,
        f"{sum(parameter.numel() for parameter in net.parameters()) / 1e6:.2f} M",
        str(layers),
        f"{members.strategy}{': ' if reason else ''}{reason:.90}",
        f"{error:.0e}",
        f"{tuned.before:.2f} → {tuned.after:.2f}",
        f"{plain.before:.2f} → {plain.after:.2f}",
        f"{tuned.seconds / plain.seconds:.1f}",
    ]


def main() -> int:
    """Print the table; return 1 if a network fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+", choices=list(ZOO), default=list(ZOO), metavar="NAME", help="default: all")
    names = parser.parse_args().names
    transformers.logging.set_verbosity_error()
    rows, problems = [], {}
    for name in names:
        try:
            rows.append(row_of(name))
            print("  ".join(rows[-1]), flush=True)
        except Exception as error:  # the other networks are still tried
            problems[name] = f"{type(error).__name__}: {error}"
            print(f"{name} FAILS: {problems[name]}", flush=True)
    origin = about(shlex.join(["python", "-m", "benchmarks.zoo_training", *sys.argv[1:]]), torch.device("cpu"))
    versions = ", ".join(f"{one.__name__} {one.__version__}" for one in (timm, transformers))
    print(f"\n{origin['date']}, {origin['machine']}, torch {origin['torch']}, {versions}: `{origin['command']}`\n")
    header = [
        "network",
        "parameters",
        "layers with factors",
        "members",
        "fold",
        "loss, ensemble",
        "loss, plain",
        "step",
    ]
    print(table(header, rows))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
