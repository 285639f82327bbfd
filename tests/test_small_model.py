"""The small language model: its network by hand, its tokens, its training, and what it reads."""

from __future__ import annotations

import copy
import math
import random
import re
from collections import Counter
from itertools import pairwise

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import chdtri

from tutorial_utils.language import compile_reward, corpus, grammar
from tutorial_utils.language.backends import LanguageModel
from tutorial_utils.language.small_model import SmallModel, Tokenizer, train
from tutorial_utils.models.gpt import END, Block, Transformer, fit, log_probs, rotate, sample

V = 9  # tokens of the tiny network
PROMPT = [3, 1, 4]
HEADER = "def compute_reward(gripper, zone, success):\n"


def one_line(error: pytest.ExceptionInfo) -> None:
    text = str(error.value)
    assert text
    assert "\n" not in text


def stir(module: torch.nn.Module, seed: int = 0, std: float = 0.4) -> torch.nn.Module:
    """Large weights and biases everywhere, so that no part of the network can hide."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for x in module.parameters():
            x.copy_(std * torch.randn(x.shape, generator=generator))
    return module.requires_grad_(False)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(V, shape, generator=torch.Generator().manual_seed(seed))


def draw(network, n=1, seed=0, prompt=PROMPT, **options) -> list[list[int]]:
    return sample(network, prompt, n, torch.Generator().manual_seed(seed), **options)


def everything(*documents) -> bool:
    return True


@pytest.fixture(scope="module")
def network() -> Transformer:
    return stir(Transformer(V, width=12, layers=2, heads=3))


@pytest.fixture(scope="module")
def documents() -> list[str]:
    return corpus.documents(400, 0, everything)


@pytest.fixture(scope="module")
def tokenizer(documents) -> Tokenizer:
    return Tokenizer(documents, 400)


@pytest.fixture
def model(tokenizer) -> SmallModel:
    return SmallModel(tokenizer, stir(Transformer(len(tokenizer), 12, 1, 2)), stop=())


# Tokens

TEXTS = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from([*"a1.* \n\r\t\0<>é漢\u2028\ufeff🤖", "end", "def "])).map("".join),
)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(TEXTS)
@example("")
@example("e\u0301 \u00e9")  # not normalised
def test_the_tokeniser_spells_any_text(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert END not in ids
    assert tokenizer.encode_all([text, "x"]) == [ids, tokenizer.encode("x")]


@pytest.mark.parametrize("text", ["<end>", "a <end> b"])
def test_no_text_spells_the_end(tokenizer, text):
    assert END not in tokenizer.encode(text)
    assert END not in tokenizer.encode_all([text])[0]
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_tokeniser_on_its_corpus(tokenizer):
    new = corpus.documents(100, 1, everything)
    lines = {line for document in new for line in document.splitlines(True)}
    for text in (*new, *lines):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert all(END < token < len(tokenizer) for token in ids)
    # a token is several letters of a text that it was made for
    assert sum(map(len, tokenizer.encode_all(new))) < 0.4 * sum(map(len, new))


@pytest.mark.parametrize("size", [257, 300, 350])
def test_the_size_bounds_the_tokens(documents, size):
    few = Tokenizer(documents, size)
    assert 257 <= len(few) <= size  # one for each byte, and the end
    again = Tokenizer(documents, size)
    assert again.encode_all(documents[:20]) == few.encode_all(documents[:20])


def test_the_end_says_nothing(tokenizer):
    ids = tokenizer.encode("to_zone")
    assert tokenizer.decode([*ids, END]) == "to_zone"
    assert tokenizer.decode([END]) == ""


# Positions


def test_rotary_positions_are_turns_of_complex_numbers():
    x = numbers(2, 3, 7, 8)
    position = torch.arange(5, 12, dtype=torch.float64)
    angle = torch.stack([position * 10000 ** (-2 * i / 8) for i in range(4)], 1)  # [T, D/2]
    turned = torch.complex(*x.double().split(4, -1)) * torch.exp(1j * angle)
    wanted = torch.cat((turned.real, turned.imag), -1)
    torch.testing.assert_close(rotate(x, 5).double(), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shift", [1, 7, 50])
def test_rotary_scores_depend_on_the_distance(shift):
    q, k = numbers(1, 1, 6, 8), numbers(1, 1, 6, 8, seed=1)
    here = rotate(q, 3) @ rotate(k, 0).mT
    there = rotate(q, 3 + shift) @ rotate(k, shift).mT
    torch.testing.assert_close(there, here, atol=1e-4, rtol=0)
    nearer = rotate(q, 3 + shift) @ rotate(k, shift + 1).mT
    assert (nearer - here).abs().min() > 1e-3


def test_rotary_positions_preserve_norms_and_shift():
    x = numbers(2, 3, 9, 8)
    torch.testing.assert_close(rotate(x).norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(rotate(x)[:, :, 4:], rotate(x[:, :, 4:], 4))
    assert torch.equal(rotate(x)[:, :, 0], x[:, :, 0])
    assert not torch.allclose(rotate(x)[:, :, 1:], x[:, :, 1:])


# The network by hand


def norm_by_hand(layer: torch.nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean()
    return centred / (centred.square().mean() + 1e-5).sqrt() * layer.weight + layer.bias


def turn_by_hand(x: torch.Tensor, position: int) -> torch.Tensor:
    half, out = len(x) // 2, x.clone()
    for i in range(half):
        angle = position * 10000 ** (-i / half)
        cos, sin = math.cos(angle), math.sin(angle)
        out[i], out[i + half] = x[i] * cos - x[i + half] * sin, x[i] * sin + x[i + half] * cos
    return out


def block_by_hand(block: Block, x: torch.Tensor) -> torch.Tensor:
    """One sequence [T, width], one position and one head after the other."""
    steps, width = x.shape
    d = width // block.heads
    rows = [
        block.qkv.weight @ norm_by_hand(block.norm_attention, row) + block.qkv.bias for row in x
    ]
    out = []
    for t in range(steps):
        mixed = []
        for h in range(block.heads):
            own = slice(h * d, (h + 1) * d)
            q, k, v = zip(*[[part[own] for part in row.split(width)] for row in rows], strict=True)
            query = turn_by_hand(q[t], t)
            seen = [query @ turn_by_hand(k[s], s) / math.sqrt(d) for s in range(t + 1)]
            total = sum(score.exp() for score in seen)
            mixed.append(sum(seen[s].exp() / total * v[s] for s in range(t + 1)))
        row = x[t] + block.out.weight @ torch.cat(mixed) + block.out.bias
        first, last = block.mlp[0], block.mlp[2]
        inner = first.weight @ norm_by_hand(block.norm_mlp, row) + first.bias
        bend = torch.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3))
        out.append(row + last.weight @ (0.5 * inner * (1 + bend)) + last.bias)
    return torch.stack(out)


@pytest.mark.parametrize(("heads", "steps"), [(1, 5), (3, 7), (6, 1)])
def test_a_block_by_hand(heads, steps):
    block = stir(Block(12, heads), seed=heads)
    x = numbers(2, steps, 12)
    exact = copy.deepcopy(block).double()
    wanted = torch.stack([block_by_hand(exact, row) for row in x.double()])
    torch.testing.assert_close(block(x).double(), wanted, atol=1e-5, rtol=1e-5)


def test_the_network_by_hand(network):
    ids = tokens(2, 6)
    exact = copy.deepcopy(network).double()
    for row, logits in zip(ids, network(ids), strict=True):
        x = exact.embedding.weight[row]
        for block in exact.blocks:
            x = block_by_hand(block, x)
        out = torch.stack([norm_by_hand(exact.norm, y) for y in x])
        wanted = out @ exact.embedding.weight.T
        torch.testing.assert_close(logits.double(), wanted, atol=1e-5, rtol=1e-5)


def test_later_tokens_never_change_earlier_logits(network):
    ids = tokens(1, 10)
    before = network(ids)
    for t in range(10):
        changed = ids.clone()
        changed[0, t] = (changed[0, t] + 1) % V
        change = (network(changed) - before).abs().amax(-1)[0]
        assert change[:t].eq(0).all() or change[:t].max() < 1e-5
        assert change[t:].min() > 1e-3


def test_the_weights_start_small():
    torch_state = torch.get_rng_state()
    small = Transformer(200, 32, 2, 4)
    torch.set_rng_state(torch_state)
    ids = torch.arange(200).view(4, 50)
    loss = torch.nn.functional.cross_entropy(small(ids).flatten(0, 1), ids.flip(0).flatten())
    assert loss.item() == pytest.approx(math.log(200), abs=0.1)


# The cache


@pytest.mark.parametrize("prompt", [1, 2, 5, 11])
def test_the_cache_gives_the_logits_of_the_full_forward(network, prompt):
    ids = tokens(3, 12)
    whole, caches = network(ids), [[] for _ in network.blocks]
    parts = [network(ids[:, :prompt], caches)]
    parts += [network(ids[:, t : t + 1], caches) for t in range(prompt, 12)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)
    for keys, values in caches:
        assert keys.shape == values.shape == (3, 3, 12, 4)


# Log-probabilities


def one_by_one(network: Transformer, prompt: list[int], answer: list[int]) -> list[float]:
    """The log-probability of each token, by a forward pass of its own."""
    logs = []
    for i, token in enumerate(answer):
        logits = network(torch.tensor([[END, *prompt, *answer[:i]]]))[0, -1].double()
        logs.append((logits[token] - logits.exp().sum().log()).item())
    return logs


@pytest.mark.parametrize("prompt", [[], [2], PROMPT])
def test_log_probs_are_those_of_one_option_and_one_token_at_a_time(network, prompt):
    answers = [[5], [1, 2, 3, 4, END], [END], [7, 7, 1]]
    values, real = log_probs(network, prompt, answers)
    assert values.shape == real.shape == (4, 5)
    for answer, row, mask in zip(answers, values, real, strict=True):
        assert mask.tolist() == [i < len(answer) for i in range(5)]
        assert row[~mask].eq(0).all()
        assert row[mask].tolist() == pytest.approx(one_by_one(network, prompt, answer), abs=1e-5)


def test_padding_never_changes_log_probs(network):
    alone, _ = log_probs(network, PROMPT, [[5, 2]])
    padded, _ = log_probs(network, PROMPT, [[5, 2], tokens(30).tolist()])
    torch.testing.assert_close(padded[:1, :2], alone, atol=1e-5, rtol=0)


def test_the_chances_of_all_tokens_sum_to_1(network):
    values, _ = log_probs(network, PROMPT, [[token] for token in range(V)])
    assert values.shape == (V, 1)
    assert values.double().exp().sum().item() == pytest.approx(1, abs=1e-5)
    pairs, _ = log_probs(network, PROMPT, [[a, b] for a in range(V) for b in range(V)])
    assert pairs.double().sum(1).exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_logprob_is_the_mean_per_token(model):
    prompt, options = "task: go\n", ["plan: go(zone)\n", "x", "    return to_zone + done\n", "é漢"]
    scores = model.logprob(prompt, options)
    assert scores.shape == (4,)
    assert not scores.requires_grad
    lengths = [len(model.tokenizer.encode(option)) for option in options]
    assert len(set(lengths)) > 2
    for option, score in zip(options, scores.tolist(), strict=True):
        ids = [model.tokenizer.encode(text) for text in (prompt, option)]
        logs = one_by_one(model.network, *ids)
        assert score == pytest.approx(sum(logs) / len(logs), abs=1e-5)
        # whatever the other options
        assert score == pytest.approx(model.logprob(prompt, [option]).item(), abs=1e-5)
    torch.testing.assert_close(model.logprob(prompt, tuple(options[::-1])).flip(0), scores)


def test_logprob_of_one_token_options(model):
    size = len(model.tokenizer)
    values, _ = log_probs(
        model.network, model.tokenizer.encode("task: "), [[t] for t in range(size)]
    )
    chances = values[:, 0].double().exp()
    assert chances.sum().item() == pytest.approx(1, abs=1e-5)
    texts = {model.tokenizer.decode([t]): t for t in range(1, size)}
    texts = {text: t for text, t in texts.items() if model.tokenizer.encode(text) == [t]}
    assert len(texts) > 100
    found = model.logprob("task: ", list(texts)).double().exp()
    torch.testing.assert_close(found, chances[list(texts.values())], atol=1e-6, rtol=1e-4)
    assert found.sum() < 1


@pytest.mark.parametrize("options", [[], [""], ["a", ""], ()])
def test_logprob_needs_options(model, options):
    with pytest.raises(ValueError, match="option") as error:
        model.logprob("task: ", options)
    one_line(error)


# Sampling


def lively(seed: int) -> Transformer:
    """A network whose likeliest token changes from place to place."""
    other = stir(Transformer(V, width=12, layers=2, heads=3), seed, std=0.8)
    other.norm.bias.zero_()
    return other


def greedy(network: Transformer, limit: int) -> list[int]:
    answer: list[int] = []
    while len(answer) < limit and END not in answer:
        answer.append(network(torch.tensor([[END, *PROMPT, *answer]]))[0, -1].argmax().item())
    return answer


@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {"top_k": 1}, {"top_k": 1, "temperature": 3.0}]
)
def test_without_chance_the_likeliest_token_is_drawn(options):
    wanted = [greedy(lively(seed), 12) for seed in (0, 5, 8, 10)]
    assert min(len(set(answer)) for answer in wanted) > 1
    assert max(len(set(answer)) for answer in wanted) > 3
    assert {END in answer for answer in wanted} == {False, True}
    for seed, answer in zip((0, 5, 8, 10), wanted, strict=True):
        assert draw(lively(seed), 3, max_tokens=12, **options) == [answer] * 3


@pytest.mark.parametrize("k", [2, 3, 5])
def test_top_k_draws_from_the_k_likeliest(network, k):
    best = network(torch.tensor([[END, *PROMPT]]))[0, -1].topk(k).indices.tolist()
    answers = draw(network, 2000, top_k=k, max_tokens=1, temperature=5.0)
    assert {answer[0] for answer in answers} == set(best)
    # at every position
    for answer in draw(network, 20, top_k=k, max_tokens=6, temperature=5.0):
        for i, token in enumerate(answer):
            logits = network(torch.tensor([[END, *PROMPT, *answer[:i]]]))[0, -1]
            assert (logits > logits[token]).sum() < k
    assert draw(network, 50, top_k=V + 3) == draw(network, 50)  # more than there are


@pytest.mark.parametrize(("temperature", "k"), [(1.0, 0), (0.5, 0), (2.0, 0), (2.0, 4)])
def test_frequencies_are_the_softmax_of_logits_over_temperature(network, temperature, k):
    """Of answers of two tokens, by chi-square; the seed is fixed, the bound is one in 10^4."""

    def chances(before: list[int]) -> list[float]:
        logits = network(torch.tensor([[END, *PROMPT, *before]]))[0, -1].double()
        worst = sorted(logits.tolist())[-k]  # k = 0: the least
        weight = [math.exp(x / temperature) * (x >= worst) for x in logits.tolist()]
        return [x / sum(weight) for x in weight]

    first = chances([])
    wanted = {(END,): first[END]}
    for a in range(1, V):
        wanted |= {(a, b): first[a] * p for b, p in enumerate(chances([a]))}
    assert sum(wanted.values()) == pytest.approx(1)
    n = 8000
    answers = draw(network, n, seed=1, temperature=temperature, top_k=k, max_tokens=2)
    counts = Counter(map(tuple, answers))
    assert all(wanted[answer] > 0 for answer in counts)
    often = {answer: n * p for answer, p in wanted.items() if n * p >= 5}
    cells = [(counts[answer], mean) for answer, mean in often.items()]
    rest = n - sum(often.values())
    if rest >= 5:
        cells.append((n - sum(count for count, _ in cells), rest))
    assert len(cells) > 5
    distance = sum((count - mean) ** 2 / mean for count, mean in cells)
    assert distance < chdtri(len(cells) - 1, 1e-4)


def test_answers_end_at_the_end(network):
    answers = draw(network, 200, max_tokens=8)
    assert len(answers) == 200
    assert len({*map(tuple, answers)}) > 50
    ended = [answer for answer in answers if END in answer]
    assert all(answer.index(END) == len(answer) - 1 < 8 for answer in ended)
    assert all(len(answer) == 8 for answer in answers if END not in answer)
    assert 0 < len(ended) < 200
    assert len({*map(len, ended)}) > 2


def test_the_generator_decides_the_answers(network):
    generator = torch.Generator().manual_seed(5)
    state, outside = generator.get_state(), torch.get_rng_state()
    first = sample(network, PROMPT, 10, generator)
    second = sample(network, PROMPT, 10, generator)
    generator.set_state(state)
    assert sample(network, PROMPT, 10, generator) == first != second
    assert torch.equal(torch.get_rng_state(), outside)


# The model as a tool


def test_the_protocol(model):
    assert isinstance(model, LanguageModel)
    assert isinstance(model.name, str)
    answers = model.propose("task: go\n", 3)
    assert len(answers) == 3
    assert all(isinstance(answer, str) for answer in answers)
    assert model.logprob("task: go\n", ["a", "b"]).lt(0).all()


@pytest.mark.parametrize(
    ("prompt", "opening"),
    [
        ("task: go\n", ""),
        ("task: go def x\n  def inner():\n", ""),
        ("define\n", ""),
        ("task: go\n" + HEADER, HEADER),
        ("task: go\n" + HEADER + "    a = 1\nfeedback: a: flat small\nbetter:\n", HEADER),
        ("def helper(x):\n    return x\n" + HEADER, HEADER),
        (HEADER + "    return 1\n" + "def compute_reward(zone):", "def compute_reward(zone):"),
    ],
)
def test_proposals_begin_with_the_last_opening_line(model, prompt, opening):
    found = model.propose(prompt, 2)
    drawn = draw(model.network, 2, prompt=model.tokenizer.encode(prompt))
    assert found == [opening + model.tokenizer.decode(answer) for answer in drawn]


def test_proposals_end_before_the_first_stop(model):
    def told(*stop: str, prompt: str = HEADER) -> list[str]:
        return SmallModel(model.tokenizer, model.network, stop=stop).propose(prompt, 4)

    texts = told(prompt="task: ")
    early, late = texts[0][10:13], texts[0][20:23]
    wanted = [text[: min(i for i in (text.find(early), len(text)) if i >= 0)] for text in texts]
    assert len(wanted[0]) <= 10
    assert told(early, prompt="task: ") == wanted
    both = [min((text.split(s)[0] for s in (early, late)), key=len) for text in texts]
    assert told(late, early, prompt="task: ") == told(early, late, prompt="task: ") == both
    assert told("compute_reward")[0].startswith(HEADER)  # the opening line is no part of the answer


def test_the_settings_of_a_model_reach_its_answers(tokenizer, model):
    prompt = tokenizer.encode("task: ")
    for options in ({"temperature": 0.0}, {"temperature": 0.7, "top_k": 3}):
        tuned = SmallModel(tokenizer, model.network, seed=3, stop=(), **options)
        drawn = draw(model.network, 3, 3, prompt, **options)
        assert tuned.propose("task: ", 3) == [tokenizer.decode(answer) for answer in drawn]
    again = SmallModel(tokenizer, model.network, seed=3, stop=())
    assert again.propose("task: ", 3) != model.propose("task: ", 3)


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2", None])
def test_proposals_need_a_number(model, n):
    with pytest.raises(ValueError, match="whole number") as error:
        model.propose("task: ", n)
    one_line(error)


def test_global_random_numbers_stay_as_they_are(model):
    state, python = torch.get_rng_state(), random.getstate()
    model.propose("task: ", 2)
    model.logprob("task: ", ["a"])
    model.copy(1).propose("task: ", 2)
    train(corpus.documents(20, 0, everything), 2, width=8, layers=1, progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == python


def weights(model: SmallModel) -> list[torch.Tensor]:
    return [x.detach() for x in model.network.parameters()]


def test_a_copy_shares_no_memory(model):
    model.temperature, model.top_k, model.stop = 0.8, 5, ("zz",)
    model.network.requires_grad_(True)
    other = model.copy(seed=7)
    assert all(torch.equal(a, b) for a, b in zip(weights(model), weights(other), strict=True))
    memory = {x.untyped_storage().data_ptr() for x in weights(model)}
    assert memory.isdisjoint(x.untyped_storage().data_ptr() for x in weights(other))
    assert (other.temperature, other.top_k, other.stop) == (0.8, 5, ("zz",))
    log_probs(model.network, [1], [[2, 3]])[0].sum().backward()
    assert any(x.grad is not None and x.grad.any() for x in model.network.parameters())
    assert all(x.grad is None for x in other.network.parameters())
    assert all(x.grad is None for x in model.copy(seed=7).network.parameters())
    kept = [x.clone() for x in weights(model)]
    fit(other.network, tokens(200), 2, rows=2, length=16, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(weights(model), kept, strict=True))
    assert not torch.equal(weights(other)[0], kept[0])


def test_a_copy_has_random_numbers_of_its_own(model):
    prompt = "task: "
    wanted = model.copy(0).propose(prompt, 5)
    model.copy(0).propose(prompt, 5)  # takes nothing from the model's
    assert model.copy(1).propose(prompt, 5) != wanted
    assert model.propose(prompt, 5) == wanted
    assert model.propose(prompt, 5) != wanted
    assert model.copy(0).propose(prompt, 5) == wanted


# Training


def test_the_loss_is_the_mean_negative_log_probability(network):
    stream = tokens(10, seed=3)  # one window: all but the last are read, all but the first foretold
    trainable = copy.deepcopy(network).requires_grad_(True)
    loss, *_ = fit(trainable, stream, 1, length=9, progress=False)
    rows = zip(network(stream[None, :-1])[0].double(), stream[1:], strict=True)
    logs = [row[token] - row.exp().sum().log() for row, token in rows]
    assert loss == pytest.approx(-sum(logs).item() / 9, abs=1e-5)


def test_windows_are_random_pieces_of_the_stream():
    seen: list[torch.Tensor] = []
    counter = Transformer(16, 8, 1, 1)
    counter.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    losses = fit(counter, torch.arange(16), 20, rows=5, length=6, progress=False)
    assert len(losses) == len(seen) == 20
    assert all(windows.shape == (5, 6) for windows in seen)
    rows = torch.cat(seen)
    assert torch.equal(rows, rows[:, :1] + torch.arange(6))
    assert set(rows[:, 0].tolist()) == set(range(10))  # the last window foretells the last token
    assert len({tuple(windows[:, 0].tolist()) for windows in seen}) > 15


def test_each_step_has_the_gradient_of_its_own_windows(network):
    """At learning rate 0 the last gradient can be had again; it is at most 1 long."""
    trainable = copy.deepcopy(network).requires_grad_(True)
    start = [x.detach().clone() for x in trainable.parameters()]
    seen: list[torch.Tensor] = []
    hook = trainable.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    stream = torch.cat((torch.arange(V), torch.arange(V).flip(0)))  # what follows is known
    fit(trainable, stream, 3, rows=1, length=3, learning_rate=0.0, progress=False)
    hook.remove()
    assert all(torch.equal(a, b) for a, b in zip(trainable.parameters(), start, strict=True))
    found = torch.cat([x.grad.flatten() for x in trainable.parameters()])
    (window,) = seen[-1].tolist()
    assert window not in [row for ids in seen[:-1] for row in ids.tolist()]
    at = next(i for i in range(len(stream) - 3) if stream[i : i + 3].tolist() == window)
    logits = trainable(stream[None, at : at + 3])[0]
    loss = -logits.log_softmax(-1)[range(3), stream[at + 1 : at + 4]].mean()
    wanted = torch.cat([x.flatten() for x in torch.autograd.grad(loss, [*trainable.parameters()])])
    assert wanted.norm() > 1
    torch.testing.assert_close(found, wanted / wanted.norm(), atol=1e-5, rtol=0)


def test_a_window_must_fit_the_stream(network):
    trainable = copy.deepcopy(network).requires_grad_(True)
    with pytest.raises(ValueError, match="9") as error:
        fit(trainable, tokens(8), 1, length=8, progress=False)
    one_line(error)
    assert len(fit(trainable, tokens(9), 2, length=8, progress=False)) == 2
    with pytest.raises(ValueError, match="token") as error:
        train(["task: go\n"], 1, progress=False)
    one_line(error)


@pytest.fixture(scope="module")
def trained(documents) -> tuple[SmallModel, list[float]]:
    return train(documents, 60, width=32, layers=1, progress=False)


def test_training_learns(trained, documents):
    model, losses = trained
    assert len(losses) == 60
    uniform = math.log(len(model.tokenizer))
    assert losses[0] == pytest.approx(uniform, abs=0.1)
    assert sum(losses[-10:]) / 10 < 0.6 * uniform
    assert not any(x.requires_grad for x in model.network.parameters())
    # what it has not read but might have is likelier than the same letters in another order
    text = corpus.documents(1, 7, everything)[0]
    line = text.splitlines(True)[1]
    good, bad = model.logprob(text.splitlines(True)[0], [line, line[::-1]]).tolist()
    assert good > bad + 1


def test_a_model_of_two_documents_knows_them():
    known = [("go:", " zone\n"), ("press:", " button\n")]
    model, _ = train([a + b for a, b in known] * 100, 60, width=64, layers=1, progress=False)
    for begin, rest in known:
        chances = model.logprob(begin, [rest for _, rest in known])
        assert known[chances.argmax()] == (begin, rest)
        values, _ = log_probs(model.network, model.tokenizer.encode(begin + rest), [[END]])
        assert values.item() > math.log(0.9)
    model.temperature = 0.0
    assert [model.propose(begin, 1) for begin, _ in known] == [[rest] for _, rest in known]
    model.temperature = 1.0
    assert {begin + rest for begin, rest in known} <= set(model.propose("", 40))


@pytest.mark.parametrize("steps", [0, 3])
def test_the_seed_decides_the_weights(documents, steps):
    models, losses = zip(
        *[train(documents[:60], steps, s, 16, 1, progress=False) for s in (4, 4, 5)], strict=True
    )
    same, again, other = map(weights, models)
    assert losses[0] == losses[1]
    assert all(torch.equal(a, b) for a, b in zip(same, again, strict=True))
    assert not torch.allclose(same[0], other[0])
    assert models[0].propose("task: ", 2) == models[1].propose("task: ", 2)
    assert models[0].propose("task: ", 2) != models[2].propose("task: ", 2)


def test_the_seed_decides_the_windows(network):
    pair = [copy.deepcopy(network).requires_grad_(True) for _ in range(2)]
    first, second = (
        fit(x, tokens(300), 3, seed, rows=2, length=8, progress=False)
        for seed, x in enumerate(pair)
    )
    assert first != second


# The corpus


def terms_of(source: str) -> list[str]:
    """The names that a program or a body assigns, in order."""
    return re.findall(r"(?m)^ +(\w+) = ", source)


def parts(document: str) -> dict[str, str]:
    """What a document is made of: task, and plan or program, and feedback and better."""
    task, rest = document.split("\n", 1)
    found = {"task": task}
    if not rest.startswith("def "):
        return found | {"plan": rest}
    found["program"], *more = re.split(r"(?m)^feedback: ", rest)
    if more:
        found["feedback"], found["better"] = more[0].split("\nbetter:\n")
    return found


@pytest.fixture(scope="module")
def drawn() -> list[tuple[list[corpus.Goal], dict[str, str]]]:
    """Documents and what each is about."""
    about: list[list[corpus.Goal]] = []

    def allowed(todo) -> bool:
        about.append(list(todo))
        return True

    texts = corpus.documents(600, 3, allowed)
    return list(zip(about, map(parts, texts), strict=True))


def test_every_kind_of_document_is_there(drawn):
    kinds = Counter(tuple(found) for _, found in drawn)
    assert set(kinds) == {
        ("task", "plan"),
        ("task", "program"),
        ("task", "program", "feedback", "better"),
    }
    assert min(kinds.values()) > 20


def test_the_seed_decides_the_documents():
    same = corpus.documents(30, 5, everything)
    assert corpus.documents(30, 5, everything) == same
    other = corpus.documents(30, 6, everything)
    assert len(set(same) & set(other)) < 5
    assert len(set(same)) > 25


def check_program(source: str) -> None:
    """It compiles for the fields of its header, and its components are its terms."""
    names = re.match(r"def compute_reward\((.*)\):\n", source)[1].split(", ")
    assert len(set(names)) == len(names)
    assert set(names) <= {*grammar.FIELDS, *grammar.FLAGS}
    shapes = {name: torch.Size([2] if name in grammar.FIELDS else []) for name in names}
    compiled = compile_reward(source, shapes)
    assert compiled.source == source.strip()
    assert list(compiled.components) == terms_of(source)
    generator = torch.Generator().manual_seed(0)
    values = {name: torch.rand(4, *shape, generator=generator) for name, shape in shapes.items()}
    total, components = compiled(values)
    torch.testing.assert_close(total, sum(components.values()))


@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("gate", ["", "holding", "(1 - holding)"])
def test_a_term_says_what_it_computes(sign, gate):
    holding, pressed = torch.tensor([0.0, 1.0, 1.0]), torch.tensor([1.0, 0.0, 1.0])
    gripper, zone = numbers(3, 2), numbers(3, 2, seed=1)
    far = (gripper - zone).square().sum(1).sqrt()
    kinds = {"distance": far, "exp": torch.exp(-2 * far), "flag": pressed, "not": 1 - pressed}
    about = {"flag": ("pressed",), "not": ("pressed",)}
    written = [
        grammar.Term(f"my_{kind}", sign, "0.5", gate, kind, about.get(kind, ("gripper", "zone")))
        for kind in kinds
    ]
    values = {"gripper": gripper, "zone": zone, "holding": holding, "pressed": pressed}
    source = grammar.program(written, list(values))
    _, found = compile_reward(source, {name: x.shape[1:] for name, x in values.items()})(values)
    factor = 0.5 * (-1 if sign else 1) * {"": 1, "holding": holding}.get(gate, 1 - holding)
    for kind, x in kinds.items():
        torch.testing.assert_close(found[f"my_{kind}"], factor * x, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("place", ["alone", "before", "after"])
def test_every_program_compiles(drawn, place):
    sources = set()
    for _, found in drawn:
        if place == "after" and "better" in found:  # the body goes under the header before it
            sources.add(found["program"].splitlines(True)[0] + found["better"])
        elif place != "after" and "program" in found and ("better" in found) == (place == "before"):
            sources.add(found["program"])
    assert len(sources) > 50
    for source in sources:
        check_program(source)


def test_feedback_names_the_terms_of_the_program_before_it(drawn):
    revisions = [found for _, found in drawn if "feedback" in found]
    for found in revisions:
        names = re.findall(r"(\w+):", found["feedback"])
        assert sorted(names) == sorted([*terms_of(found["program"]), "success"])
        assert "\n" not in found["feedback"]
    changed = [terms_of(found["program"]) != terms_of(found["better"]) for found in revisions]
    assert any(changed)  # so that "before" means something
    assert not all(changed)


def test_a_revision_that_repairs_changes_something():
    """A program stays as it is only where the signs are good: success, and no other complaint."""
    rng, kept = random.Random(0), 0
    for _ in range(3000):
        todo, by = corpus.goals(rng), corpus.style(rng)
        change = corpus.revise(todo, by, rng)
        if grammar.body(change.before) == grammar.body(change.after):
            kept += 1
            complaints = re.findall("flat|down|large|zero|none", change.feedback)
            assert not complaints, (todo, by, change.feedback)
    assert 30 < kept < 1500


def test_terms_have_names_of_their_own():
    rng = random.Random(1)
    for _ in range(500):
        change = corpus.revise(corpus.goals(rng), corpus.style(rng), rng)
        for written in (change.before, change.after):
            names = [term.name for term in written]
            assert names
            assert len(set(names)) == len(names)
            assert all(str(term).startswith(f"{term.name} = ") for term in written)


def test_goals():
    rng = random.Random(0)
    chosen = [corpus.goals(rng) for _ in range(1000)]
    assert {goal for todo in chosen for goal in todo} == set(corpus.GOALS)
    assert {len(todo) for todo in chosen} == {1, 2, 3}
    for todo in chosen:
        verbs = [verb for verb, _ in todo if verb != "go"]
        assert len(set(todo)) == len(todo)
        assert len(set(verbs)) == len(verbs)


def phrases(goal: corpus.Goal) -> set[str]:
    return {corpus.instruction([goal], random.Random(seed)) for seed in range(20)}


def test_the_phrases_tell_all_goals_apart():
    spoken = [phrase for goal in corpus.GOALS for phrase in phrases(goal)]
    assert len(set(spoken)) == len(spoken)
    assert all(len(phrases(goal)) > 1 for goal in corpus.GOALS)


def test_instructions_say_the_goals_in_order(drawn):
    for todo, found in drawn:
        ends = [0]
        for goal in todo:
            places = [found["task"].find(phrase, ends[-1]) for phrase in phrases(goal)]
            assert max(places) >= 0
            ends.append(max(places) + 1)
        assert all(a < b for a, b in pairwise(ends))
        things = [thing.replace("object", "disc") for _, thing in todo]
        assert all(thing in found["task"] for thing in things)


def test_plans_list_the_goals_in_order(drawn):
    plans = [(todo, found["plan"]) for todo, found in drawn if "plan" in found]
    for todo, plan in plans:
        assert re.findall(r"(\w+)\((\w+)\)", plan) == todo
        assert corpus.plan(todo) in plan
    assert any(todo != sorted(todo) for todo, _ in plans)


def test_held_out_tasks_are_in_no_document():
    def allowed(todo) -> bool:
        return not {"put", "press"} <= {verb for verb, _ in todo}

    press = phrases(("press", "button"))
    put = {phrase for goal in corpus.GOALS if goal[0] == "put" for phrase in phrases(goal)}

    def both(document: str) -> bool:
        spoken = all(any(p in document for p in words) for words in (press, put))
        planned = "press(" in document and "put(" in document
        names = terms_of(document)
        return spoken or planned or ("press" in names and any(n.startswith("bring") for n in names))

    assert sum(map(both, corpus.documents(400, 2, everything))) > 10
    held_out = corpus.documents(400, 2, allowed)
    assert len(held_out) == 400
    assert not any(map(both, held_out))
    for words in (press, put):  # each alone is there
        assert sum(any(p in text for p in words) for text in held_out) > 20


def test_allowed_excludes(documents):
    only = corpus.documents(40, 0, lambda todo: list(todo) == [("light", "lamp")])
    assert len(only) == 40
    spoken = {text.splitlines()[0].split(": ", 1)[1] for text in only}
    assert spoken == phrases(("light", "lamp"))
    assert any("door" in text for text in documents)
