"""Fine-tuning on pictures of mixed sizes from trained weights of another library, on the command line."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from driver import command, one_line
from PIL import Image
from torchvision import models

from bayes_share.runs.loading import load_run
from bayes_share.runs.run_folder import RunFolder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes that differ in brightness, with images of mixed sizes, in colour and greyscale."""
    rng = np.random.default_rng(0)
    for place in range(40):
        height, width = rng.integers(30, 60, 2)
        mode = "L" if place % 3 == 0 else "RGB"
        level = 60 + 120 * (place % 2)
        pixels = rng.integers(level - 40, level + 40, (height, width, 3), dtype=np.uint8)
        path = tmp_path / "pictures" / ("dark", "bright")[place % 2] / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[..., 0] if mode == "L" else pixels, mode).save(path)
    return tmp_path


def test_a_network_is_fine_tuned_as_an_ensemble_on_pictures_of_mixed_size(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures)
    torch.manual_seed(0)
    trained = models.squeezenet1_1(num_classes=1000)
    torch.save(trained.state_dict(), "weights.pth")
    words = ["fit", "map", "--data", "folder:pictures", "--image-size", "32", "--model", "torchvision:squeezenet1_1"]
    words += ["--weights", "weights.pth", "--ensemble-size", "2", "--batch-size", "8", "--no-progress"]
    assert "--init normal would destroy what the trained weights have learned: use --init keep or ones" in one_line(
        command(*words, "--init", "normal", "--out", "run"), 2
    )
    words += ["--learning-rate", "1e-12", "--weight-decay", "0", "--epochs", "1", "--out", "run"]
    outcome = command(*words)
    assert outcome.code == 0, outcome.err
    assert yaml.safe_load(Path("run/config.yaml").read_text())["init"] == "keep"  # by default, for trained weights
    network = load_run("run").state.model.network
    kept = dict(network.network.named_parameters())
    for name, value in trained.named_parameters():
        if not name.startswith("classifier") and name.endswith("weight"):
            torch.testing.assert_close(kept[name], value, rtol=0, atol=1e-6)
    Path("weights.pth").unlink()  # a run resumes from its checkpoint alone
    assert command(*words, "--resume").code == 0
    with np.load(RunFolder(Path("run")).predictions("test")) as file:
        assert file["logits"].shape == (1, 2, 8, 2)
        assert all(Path("pictures", name).is_file() for name in file["names"].tolist())
    assert "gone.pth" in one_line(command(*words, "--weights", "gone.pth", "--out", "other"), 2)
    assert not Path("other").exists()
