"""Networks of torchvision and timm by name, and pretrained weights for networks with a different last layer."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from bayes_share.errors import InputError
from bayes_share.models import build_network
from bayes_share.models.weights import load_weights, read_weights
from bayes_share.sharing import ensemble

OPTIONS: dict[str, Any] = {"num_classes": 5, "in_channels": 3, "image_size": (32, 32)}


@pytest.mark.parametrize("name", ["torchvision:resnet18", "torchvision:squeezenet1_1", "torchvision:vit_b_16"])
def test_torchvision_networks_are_built_by_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = build_network(name, **OPTIONS).eval()
    with torch.no_grad():
        assert net(torch.randn(2, 3, 32, 32)).shape == (2, 5)


def test_a_torchvision_network_equals_the_one_built_by_the_library() -> None:
    torch.manual_seed(0)
    ours = build_network("torchvision:resnet18", **OPTIONS).state_dict()
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(num_classes=5).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_timm_networks_are_built_by_name() -> None:
    pytest.importorskip("timm")
    net = build_network("timm:resnet10t", **(OPTIONS | {"in_channels": 1, "dropout": 0.2})).eval()
    assert net.drop_rate == 0.2
    assert ensemble(net, 2)(torch.randn(3, 1, 32, 32)).shape == (2, 3, 5)
    transformer = build_network("timm:vit_tiny_patch16_224", **(OPTIONS | {"image_size": (48, 32)})).eval()
    assert transformer(torch.randn(2, 3, 48, 32)).shape == (2, 5)
    with pytest.raises(InputError, match="timm has no network 'resnet18x': did you mean timm:resnet18"):
        build_network("timm:resnet18x", **OPTIONS)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("torchvision:resnet81", {}, "torchvision has no network 'resnet81': did you mean torchvision:resnet18"),
        ("torchvision:qqqqqq", {}, r"no network 'qqqqqq': torchvision.models.list_models\(\) lists all"),
        ("torchvision:fasterrcnn_resnet50_fpn", {}, "torchvision has no network 'fasterrcnn_resnet50_fpn'"),
        ("torchvision:resnet18", {"in_channels": 1}, "requires images with 3 channels, not 1"),
        ("torchvision:resnet18", {"norm": "frn"}, "is fixed by its library: leave norm out"),
        ("torchvision:resnet18", {"dropout": 0.1}, "does not support dropout: leave dropout at 0"),
        ("torchvision:vit_b_16", {"image_size": (32, 48)}, "requires square images, not 32 x 48"),
        ("torchvision:vit_b_16", {"image_size": (30, 30)}, "cannot be built for 5 classes and images of 3 x 30 x 30"),
        ("keras:resnet18", {}, "unknown model 'keras:resnet18'"),
    ],
)
def test_networks_that_cannot_be_built_raise_a_one_line_message(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build_network(name, **(OPTIONS | options))
    assert "\n" not in str(caught.value)


def small(classes: int, width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width * 4, classes))


SAVED: dict[str, Any] = {
    "state dict": lambda state: state,
    "checkpoint": lambda state: {"epoch": 3, "state_dict": state},
    "DataParallel": lambda state: {"model": {f"module.{name}": value for name, value in state.items()}},
}


@pytest.mark.parametrize("saved", SAVED.values(), ids=SAVED)
@pytest.mark.parametrize("classes", [7, 5])
def test_all_weights_except_a_different_last_layer_are_loaded(saved: Any, classes: int, tmp_path: Path) -> None:
    theirs, net = small(7), small(classes)
    drawn = {name: value.clone() for name, value in net.state_dict().items()}
    torch.save(saved(theirs.state_dict()), tmp_path / "weights.pth")
    new = load_weights(net, read_weights(tmp_path / "weights.pth"), "weights.pth")
    assert new == ([] if classes == 7 else ["3.weight", "3.bias"])
    for name, value in net.state_dict().items():
        assert torch.equal(value, (drawn if name in new else theirs.state_dict())[name]), name


@pytest.mark.parametrize(
    ("other", "own"),
    [
        (lambda size: nn.Sequential(nn.Embedding(size, 4), nn.Linear(4, 3)), "0.weight"),  # its values would be lost
        (lambda size: nn.Sequential(nn.Linear(3, size, bias=False), nn.Linear(4, size, bias=False)), "0.weight"),
    ],
    ids=["embedding", "two-layers"],
)
def test_only_one_layer_may_have_another_number_of_outputs(other: Any, own: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"of another shape: {own}"):
        load_weights(other(5), other(7).state_dict(), "weights.pth")


def test_safetensors_files_are_read(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.torch")
    theirs, net = small(7), small(7)
    library.save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    assert load_weights(net, read_weights(tmp_path / "w.safetensors"), "w") == []
    assert torch.equal(net[0].weight, theirs[0].weight)
    (tmp_path / "w.safetensors").write_bytes(b"none")
    with pytest.raises(InputError, match="cannot be read as a safetensors file"):
        read_weights(tmp_path / "w.safetensors")


class Evil:
    def __reduce__(self) -> Any:
        return print, ("unpickled",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Evil(), "cannot be read as weights saved by torch.save"),
        ({"epoch": 3}, "contains no weights: save network.state_dict"),
        ([1, 2], "contains no weights"),
        ({}, "contains no weights"),
        (
            small(7, width=5).state_dict(),
            "w.pth do not match the network; of another shape: 0.weight, 0.bias",
        ),
        (
            nn.Linear(3, 2).state_dict(),
            "the network; missing: 0.weight, 0.bias, 1.weight and 5 more",
        ),
        ({**small(7).state_dict(), "9.weight": torch.ones(1)}, "do not match the network; unexpected: 9.weight"),
    ],
)
def test_files_without_matching_weights_raise_a_one_line_message(
    content: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError, match=message) as caught:
        load_weights(small(7), read_weights(tmp_path / "w.pth"), "w.pth")
    assert "\n" not in str(caught.value)
    assert "unpickled" not in capsys.readouterr().out
    with pytest.raises(InputError, match=r"no such file|cannot be read"):
        read_weights(tmp_path / "gone.pth")
