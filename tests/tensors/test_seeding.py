import itertools
import subprocess
import sys

import pytest
import torch

from bayes_share.tensors.seeding import generator, seed_from, seeded

KEYS = [(0, "init"), (1, "init"), (0, "step", 1), (0, "step", 11), (0, "step", "1"), (0, "step1"), (0, "epoch", 1), ()]


def test_seeds_never_change() -> None:
    """Runs may be resumed in other processes, on other machines and with other versions."""
    assert seed_from(0, "init") == 5184189234732532942
    assert seed_from(0, "step", 17) == 7632570683417508863


def test_seeds_do_not_depend_on_the_process() -> None:
    code = "from bayes_share.tensors.seeding import seed_from; print(seed_from(3, 'epoch', 2))"
    found = {
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
        for _ in range(2)
    }
    assert found == {str(seed_from(3, "epoch", 2))}


def test_different_keys_have_different_seeds() -> None:
    assert len({seed_from(*key) for key in KEYS}) == len(KEYS)
    many = {seed_from(seed, "step", step) for seed, step in itertools.product(range(20), range(500))}
    assert len(many) == 20 * 500
    assert all(0 <= seed < 2**63 for seed in many)


def test_a_generator_depends_on_its_key_only_and_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    first = torch.randn(5, generator=generator(0, "a"))
    assert torch.equal(first, torch.randn(5, generator=generator(0, "a")))
    assert not torch.equal(first, torch.randn(5, generator=generator(0, "b")))
    assert torch.equal(torch.get_rng_state(), before)


def test_seeded_gives_the_same_numbers_after_any_draws() -> None:
    drawn = []
    for before in range(3):
        torch.randn(before)
        with seeded(7, "step", 1):
            drawn.append(torch.cat([torch.randn(3), torch.nn.functional.dropout(torch.ones(9))]))
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])
    with seeded(7, "step", 2):
        assert not torch.equal(drawn[0][:3], torch.randn(3))


@pytest.mark.parametrize("fails", [False, True])
def test_seeded_restores_the_generator_state(fails: bool) -> None:
    torch.manual_seed(5)
    expected = torch.randn(4)
    torch.manual_seed(5)
    try:
        with seeded("outer"), seeded("inner"):
            torch.randn(10)
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert torch.equal(torch.randn(4), expected)


def test_seeded_can_be_nested() -> None:
    with seeded("outer"):
        expected = torch.randn(6)
    with seeded("outer"):
        first = torch.randn(3)
        with seeded("inner"):
            torch.randn(10)
        assert torch.equal(torch.cat([first, torch.randn(3)])[:3], expected[:3])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_seeded_gives_the_same_numbers_on_a_gpu() -> None:
    torch.cuda.init()
    state = torch.cuda.get_rng_state()
    drawn = []
    for _ in range(2):
        with seeded("gpu"):
            drawn.append(torch.randn(5, device="cuda"))
    assert torch.equal(*drawn)
    assert torch.equal(torch.cuda.get_rng_state(), state)
