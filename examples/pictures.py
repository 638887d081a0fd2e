"""Fine-tune a trained timm network as an ensemble on 300 images of different sizes and modes, and write a report.

    python examples/pictures.py

Requires timm (`pip install timm`). Draws gratings, trains a network to classify eight orientations, and fine-tunes it
as an ensemble of four that classifies three other orientations.
"""

import json
import math
import os
import shlex
import tempfile
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from torch.nn import functional

from bayes_share.cli import main as bayes_share

NETWORK, SIDE = "test_resnet", 32
CLASSES = {"steep": 75.0, "diagonal": 45.0, "flat": 15.0}  # degrees
COMMANDS = (
    f"fit map --data folder:pictures --image-size {SIDE} --model timm:{NETWORK} --weights trained.pt --ensemble-size 4 "
    "--init keep --augment flip --learning-rate 0.01 --batch-size 32 --epochs 8 --out run",
    "evaluate run",
    "report run -o report.html --json report.json",
)


def main() -> None:
    """Train, fine-tune, write a report, and check that the classes were learned."""
    folder = Path(tempfile.mkdtemp())
    os.chdir(folder)
    torch.manual_seed(0)
    torch.set_num_threads(1)  # fastest for small steps
    random = np.random.default_rng(0)
    torch.save(trained_network(random).state_dict(), "trained.pt")
    write_pictures(Path("pictures"), random)
    for command in COMMANDS:
        print(f"$ bayes-share {command}")
        if bayes_share(shlex.split(command)):
            raise SystemExit(f"'bayes-share {command}' failed")
    accuracy = json.loads(Path("report.json").read_text())["tables"]["overview"][0]["accuracy"]["value"]
    print(f"accuracy {accuracy:.1%}; all files are in {folder}")
    if accuracy < 0.9:
        raise SystemExit("the accuracy should be at least 90 %")


def grating(random: np.random.Generator, degrees: float, height: int, width: int) -> np.ndarray:
    """Draw noisy stripes, uint8 ``[height, width]``, mirrored at random: mirror images have the same class."""
    degrees = degrees + random.normal(0, 4)
    angle = math.radians(degrees if random.random() < 0.5 else 180 - degrees)
    y, x = np.mgrid[:height, :width] / min(height, width)
    waves = np.sin(
        2 * math.pi * random.uniform(3, 6) * (x * math.cos(angle) + y * math.sin(angle)) + random.uniform(0, 6)
    )
    return np.clip(128 + 60 * waves + random.normal(0, 110, waves.shape), 0, 255).astype(np.uint8)


def trained_network(random: np.random.Generator) -> torch.nn.Module:
    """Train a network to classify eight other orientations, in place of a downloaded one."""
    angles = np.linspace(0, 90, 8)
    labels = random.integers(0, 8, 1600)
    images = np.stack([grating(random, angles[label], SIDE, SIDE) for label in labels])
    x = torch.from_numpy(images).float().div(255).sub(0.5).div(0.25)[:, None].expand(-1, 3, -1, -1)
    y = torch.from_numpy(labels)
    network = timm.create_model(NETWORK, num_classes=8)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    for _ in range(4):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(network(x[rows]), y[rows]).backward()
            optimizer.step()
    return network


def write_pictures(folder: Path, random: np.random.Generator) -> None:
    """Write 300 images of different sizes and modes (RGB, grey, RGBA, palette), in one folder per class."""
    for place in range(300):
        name = list(CLASSES)[place % 3]
        height, width = random.integers(40, 120, 2)
        pixels = grating(random, CLASSES[name], int(height), int(width))
        picture = Image.fromarray(pixels).convert(("RGB", "L", "RGBA", "P")[place % 4])
        (folder / name).mkdir(parents=True, exist_ok=True)
        picture.save(folder / name / f"{place:03}.png")


if __name__ == "__main__":
    main()
