"""Ensembles under what torch does to networks: `torch.func`, tracing, exporting, inference mode."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from explicit import close, perturb
from nets import images, network
from torch import nn

from bayes_share.sharing import Ensemble, ensemble, member_networks

MEMBERS = 3


@pytest.fixture
def folded(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The plain networks that have been made since, in order."""
    made: list[nn.Module] = []
    fill = member_networks.fill
    monkeypatch.setattr(member_networks, "fill", lambda *given: made.append(fill(*given)) or made[-1])
    return made


def ready() -> Ensemble:
    """An ensemble in eval mode that has settled how it computes."""
    return perturb(ensemble(network("batch norm 2d").eval(), MEMBERS, example=images(2)), seed=1)


@torch.no_grad()
def test_parameters_of_one_call_are_not_kept(folded: list[nn.Module]) -> None:
    members = ready()
    weight = members.network[3].weight
    draws = {"network.3.weight": torch.stack([weight, 2 * weight])}
    x = images()
    found = torch.func.vmap(lambda draw: torch.func.functional_call(members, draw, (x,)))(draws)
    assert not folded
    for draw, one in zip(draws["network.3.weight"], found, strict=True):
        close(one, torch.func.functional_call(members, {"network.3.weight": draw}, (x,)), 1e-12)
        assert not folded
    for draw, one in zip(draws["network.3.weight"], found, strict=True):
        weight.copy_(draw)
        close(one, members(x), 1e-12)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("unchecked")
def test_an_ensemble_can_be_traced() -> None:
    members = ready()
    close(torch.jit.trace(members, images())(images()), members(images()), 1e-12)


EXPORT = """
from test_transformed import *
with torch.no_grad():
    members = ready()
    close(torch.export.export(members, (images(),)).module()(images()), members(images()), 1e-12)
"""


def test_an_ensemble_can_be_exported() -> None:
    # In a process of its own: not every torch traces the checks of annotations that tests are run with.
    paths = [str(path) for path in list(Path(__file__).parents)[:3]]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    result = subprocess.run([sys.executable, "-c", EXPORT], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_an_ensemble_made_in_inference_mode_predicts() -> None:
    with torch.inference_mode():
        members = ensemble(network("no norm"), MEMBERS, "ones").eval()
        expected = network("no norm")(images()).expand(MEMBERS, -1, -1)
        close(members(images()), expected)
        members.network[3].weight.mul_(2)
        close(members(images()), 2 * expected)
