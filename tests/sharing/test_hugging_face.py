"""Networks of Hugging Face as ensembles: each member is what a plain copy with its weights is, to the last argument."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from explicit import close, perturb
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.layers import set_way
from bayes_share.sharing import Ensemble, describe_sharing, ensemble, fold, ledger, share_groups, share_layers

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()

MEMBERS, ROWS, TOKENS, WORDS = 3, 5, 7, 40
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 16, "bos_token_id": 1, "eos_token_id": 1}
HEAD = {"num_labels": 3, "pad_token_id": 0}


def bert() -> nn.Module:
    config = transformers.BertConfig(**SIZES, **HEAD, vocab_size=WORDS, max_position_embeddings=16)
    return transformers.BertForSequenceClassification(config)


def gpt2() -> nn.Module:
    config = transformers.GPT2Config(**GPT2, **HEAD, vocab_size=WORDS, use_cache=False)
    return transformers.GPT2ForSequenceClassification(config)


def gpt2_of_words() -> nn.Module:
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2, vocab_size=WORDS, use_cache=False))


def llama(**options: Any) -> nn.Module:
    config = transformers.LlamaConfig(**SIZES, **HEAD, vocab_size=WORDS, num_key_value_heads=2, **options)
    return transformers.LlamaForSequenceClassification(config)


def vit() -> nn.Module:
    config = transformers.ViTConfig(**SIZES, image_size=8, patch_size=4, num_labels=3)
    return transformers.ViTForImageClassification(config)


def sentences() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(2, WORDS, (ROWS, TOKENS), generator=generator)
    mask = (torch.arange(TOKENS) < torch.tensor([7, 4, 5, 7, 6])[:, None]).long()
    return {"input_ids": words * mask, "attention_mask": mask}


def pictures() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"pixel_values": torch.randn(ROWS, 3, 8, 8, dtype=torch.float64, generator=generator)}


@dataclass(frozen=True)
class Case:
    """A network, a batch, its targets, and what gets factors, by the class."""

    make: Callable[[], nn.Module]
    batch: Callable[[], dict[str, Tensor]]
    kinds: dict[str, int]


CASES = {
    "bert": Case(bert, sentences, {"Rank1Embedding": 2, "Rank1Linear": 14}),
    "gpt2": Case(gpt2, sentences, {"Rank1Embedding": 1, "Rank1Conv1D": 8, "Rank1Linear": 1}),
    "gpt2 of words": Case(gpt2_of_words, sentences, {"Rank1Embedding": 1, "Rank1Conv1D": 8, "Rank1Linear": 1}),
    "llama": Case(lambda: llama(use_cache=False), sentences, {"Rank1Embedding": 1, "Rank1Linear": 15}),
    "vit": Case(vit, pictures, {"Rank1Conv2d": 1, "Rank1Linear": 13}),
}
ALL = pytest.mark.parametrize("name", CASES)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is tied, and differs; deprecations inside transformers
        yield


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return perturb(CASES[name].make().double()).eval()


def labelled(name: str) -> dict[str, Tensor]:
    batch = CASES[name].batch()
    return {**batch, "labels": batch["input_ids"] if "words" in name else torch.tensor([0, 2, 1, 1, 0])}


def kinds(members: Ensemble) -> dict[str, int]:
    found: dict[str, int] = {}
    for module in members.network.modules():
        if (kind := type(module).__name__).startswith("Rank1"):
            found[kind] = found.get(kind, 0) + 1
    return found


@pytest.mark.parametrize("strategy", ["auto", "tile", "loop"])
@ALL
def test_members_are_plain_copies_with_their_weights(name: str, strategy: Any) -> None:
    net, batch = network(name), labelled(name)
    members = ensemble(net, MEMBERS, "normal", strategy=strategy)
    found = members(**batch, output_hidden_states=True)
    assert type(found) is type(net(**batch))
    assert kinds(members) == CASES[name].kinds
    assert members.strategy == ("loop" if strategy == "loop" else "tile")
    plain = [fold(members, member)(**batch, output_hidden_states=True) for member in range(MEMBERS)]
    close(found.logits, torch.stack([one.logits for one in plain]))
    close(found.loss, torch.stack([one.loss for one in plain]).mean(0), 1e-6 if "words" in name else 1e-10)
    assert len(found.hidden_states) == len(plain[0].hidden_states) == 3
    close(found.hidden_states[1], torch.stack([one.hidden_states[1] for one in plain]))
    with torch.no_grad():
        close(members(**batch).logits, found.logits)  # folded
        set_way(members, "activations")
        close(members(**batch).logits, found.logits)
    as_tuple = members(**batch, return_dict=False)
    assert isinstance(as_tuple, tuple)
    close(as_tuple[1], found.logits)
    assert float((found.logits[0] - found.logits[1]).detach().abs().max()) > 1e-3


@ALL
def test_gradients_of_both_strategies_are_the_same(name: str) -> None:
    batch = CASES[name].batch()
    members = ensemble(network(name), MEMBERS, "normal", example=batch)
    direction = torch.randn(members(**batch).logits.shape, dtype=torch.float64)
    gradients = []
    for strategy in ("tile", "loop"):
        members.strategy = strategy
        members.zero_grad()
        (members(**batch).logits * direction).sum().backward()
        gradients.append({name: own.grad for name, own in members.named_parameters() if own.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for own, gradient in gradients[0].items():
        close(gradient, gradients[1][own], 1e-9)
    missing = {own for own, _ in members.named_parameters()} - gradients[0].keys()
    assert not [own for own in missing if "pooler" not in own and "mask_token" not in own]


@pytest.mark.parametrize("strategy", ["tile", "loop"])
def test_a_split_batch_is_each_members_own(strategy: Any) -> None:
    words = sentences()["input_ids"].repeat(3, 1)
    members = ensemble(network("bert"), MEMBERS, "normal", strategy=strategy)
    found = members(input_ids=words, feed="split").logits
    parts = words.chunk(MEMBERS)
    close(found, torch.stack([fold(members, member)(part).logits for member, part in enumerate(parts)]))


def test_positions_are_of_the_batch_by_their_axes() -> None:
    net, words = network("gpt2"), sentences()["input_ids"]
    members = ensemble(net, MEMBERS, "normal", example=sentences())
    for positions in (torch.arange(TOKENS)[None], torch.arange(ROWS)[:, None] + torch.arange(TOKENS), None):
        found = members(words, position_ids=positions)
        assert members.strategy == "tile"
        plain = [fold(members, member)(words, position_ids=positions).logits for member in range(MEMBERS)]
        close(found.logits, torch.stack(plain))


@pytest.mark.parametrize("feed", ["tile", "split"])
@pytest.mark.parametrize("strategy", ["auto", "loop"])
def test_a_loss_over_a_count_of_items_is_the_mean_of_the_members(strategy: Any, feed: Any) -> None:
    net = network("gpt2 of words")
    words = sentences()["input_ids"].repeat(MEMBERS, 1)
    members = ensemble(net, MEMBERS, "normal", strategy=strategy)
    items = words[:, 1:].numel()
    for count in (items, torch.tensor(items)):
        found = members(words, labels=words, num_items_in_batch=count, feed=feed)
        assert members.strategy == ("loop" if strategy == "loop" else "tile")
        parts = words.chunk(MEMBERS) if feed == "split" else [words] * MEMBERS
        losses = [fold(members, member)(part, labels=part).loss for member, part in enumerate(parts)]
        close(found.loss, torch.stack(losses).mean(), 1e-5)


@pytest.mark.parametrize("strategy", ["auto", "tile", "loop"])
def test_a_cache_is_refused_in_one_line(strategy: Any) -> None:
    members = ensemble(llama().double().eval(), MEMBERS, strategy=strategy)
    refused = "an ensemble does not support a DynamicCache of keys and values: call it with use_cache=False, or set"
    with pytest.raises(InputError, match=refused):
        members(**sentences())
    assert members(**sentences(), use_cache=False).logits.shape == (MEMBERS, ROWS, 3)
    with pytest.raises(InputError, match=refused):
        members(**sentences(), use_cache=False, past_key_values=transformers.DynamicCache())


def test_a_linear_layer_of_gpt2_shares_like_any_other() -> None:
    net, words = network("gpt2"), sentences()["input_ids"]
    shared = share_layers(net, "*.mlp.c_fc")
    assert "one base weight 32x128: transformer.h.0.mlp.c_fc, transformer.h.1.mlp.c_fc" in describe_sharing(shared)
    cut = share_groups(shared, 2, include=["*.c_proj"])
    members = perturb(ensemble(cut, MEMBERS, "normal", example={"input_ids": words}))
    close(members(words).logits, torch.stack([fold(members, m)(words).logits for m in range(MEMBERS)]))
    assert type(fold(members, 0).transformer.h[0].mlp.c_fc) is type(net.transformer.h[0].mlp.c_fc)
    assert ledger(members, {"input_ids": words}).flops > 0


@pytest.mark.parametrize("options", [{"factor_rank": 2}, {"factor_form": "additive"}, {"own": ["*.c_fc"]}], ids=str)
def test_a_linear_layer_of_gpt2_takes_every_kind_of_factor(options: dict[str, Any]) -> None:
    words = sentences()["input_ids"]
    members = perturb(ensemble(network("gpt2"), MEMBERS, "normal", example={"input_ids": words}, **options))
    for way in ("activations", "weights"):
        set_way(members, way)
        close(members(words).logits, torch.stack([fold(members, m)(words).logits for m in range(MEMBERS)]))
