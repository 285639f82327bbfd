"""Films as tokens: patches, the codebook, and a transformer that must not see what comes later."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from tutorial_utils.models import video
from tutorial_utils.models.gpt import Block

K, N, T = 7, 4, 3  # codes, cells of a frame, frames


def pixels(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, shape, generator=generator, dtype=torch.uint8)


def tokens(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(K, (rows, T * N), generator=torch.Generator().manual_seed(seed))


def words(rows: int) -> torch.Tensor:
    return torch.zeros(rows, dtype=torch.long)


@pytest.fixture
def network() -> video.FilmTransformer:
    torch.manual_seed(0)
    made = video.FilmTransformer(K, N, T, words=3, width=16)
    with torch.no_grad():
        for weight in made.parameters():  # large, so that no part can hide
            weight.copy_(0.4 * torch.randn(weight.shape))
    return made.requires_grad_(False)


def test_patches_can_be_put_together_again():
    frames = pixels(2, 3, 8, 8, 3)
    x = video.patches(frames, 4)
    assert x.shape == (2, 3, 4, 48)
    assert (x[0, 0, 1].view(4, 4, 3) == frames[0, 0, :4, 4:].float() / 127.5 - 1).all()
    assert (video.frames_of(x, 4) == frames).all()


def test_a_tokenizer_that_begins_as_the_identity_shows_its_codes():
    tokenizer = video.FrameTokenizer(5).requires_grad_(False)
    x = video.patches(pixels(5, 4, 4, 3), 4)[:, 0]  # [5, 48]
    tokenizer.codebook.copy_(x)
    assert tokenizer(pixels(5, 4, 4, 3))[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert (tokenizer.decode(torch.arange(5)[:, None]) == pixels(5, 4, 4, 3)).all()


def test_the_gradient_goes_straight_through_the_codebook():
    torch.manual_seed(0)
    tokenizer = video.FrameTokenizer(3, identity=False)
    x = video.patches(pixels(6, 4, 4, 3), 4)[:, 0]
    loss, chosen, z = video.vq_loss(tokenizer, x)
    e = tokenizer.codebook[chosen].detach().requires_grad_()
    (wanted,) = torch.autograd.grad((tokenizer.rebuild(e) - x).square().mean(), e)
    (got,) = torch.autograd.grad(loss, z)
    commitment = 2 * 0.25 * (z - e).detach() / z.numel()
    assert torch.allclose(got, wanted + commitment, atol=1e-6)


def test_training_brings_dead_codes_back_and_rebuilds_better():
    torch.manual_seed(0)
    x = video.patches(pixels(8, 4, 4, 3), 4)[:, 0]
    tokenizer = video.FrameTokenizer(8)
    weight = torch.arange(8.0) + 1
    losses = video.fit_tokenizer(
        tokenizer, x, 300, 0, weight, batch=64, learning_rate=2e-2, progress=False
    )
    assert losses[-1] < 0.3 * losses[0]
    assert len(tokenizer.nearest(tokenizer.encode(x)).unique()) == 8


def test_later_tokens_change_nothing_before_them_unless_the_input_has_no_lag(network):
    a, at = tokens(2), 6
    b = torch.cat((a[:, :at], (a[:, at:] + 1) % K), 1)
    before = [video.surprise(network, x, words(2))[:, :at] for x in (a, b)]
    assert torch.allclose(*before, atol=1e-6)
    honest, leaking = (
        [
            network(video.later(x, lag, K), video.later(x, N, K), words(2))[:, : at + 1]
            for x in (a, b)
        ]
        for lag in (1, 0)
    )
    assert torch.allclose(*honest, atol=1e-5)
    assert not torch.allclose(*leaking, atol=1e-2)


def test_surprise_is_in_bits(network):
    x = tokens(2)
    logits = network(video.later(x, 1, K), video.later(x, N, K), words(2))
    p = F.softmax(logits, -1).gather(-1, x[..., None])[..., 0]
    assert torch.allclose(video.surprise(network, x, words(2)), -p.log2(), atol=1e-4)


def test_a_greedy_dream_follows_the_likeliest_token_with_or_without_cache(network):
    seen, told = tokens(3)[:, :5], torch.tensor([0, 1, 2])
    got = video.dream(network, seen, told, 7, torch.Generator(), temperature=0)
    film = torch.cat((seen, torch.full((3, 7), K)), 1)
    for place in range(5, 12):
        logits = network(video.later(film, 1, K), video.later(film, N, K), told)
        film[:, place] = logits[:, place].argmax(-1)
    assert (got == film[:, 5:]).all()
    drawn = video.dream(network, seen, told, 7, torch.Generator().manual_seed(0))
    again = video.dream(network, seen, told, 7, torch.Generator().manual_seed(0))
    assert (drawn == again).all()


def test_training_learns_what_a_word_says_of_the_future():
    torch.manual_seed(0)
    told = torch.tensor([1, 2])
    film = told[:, None].expand(-1, T * N).clone()
    film[:, :N] = 0  # both begin alike, and go on as their word says
    network = video.FilmTransformer(K, N, T, words=3, width=16)
    losses = video.fit_films(network, film, told, 200, 0, progress=False)
    assert losses[-1] < 0.2 * math.log2(K)
    got = video.dream(network, film[:, :N], told, 2 * N, torch.Generator(), temperature=0)
    assert (got == film[:, N:]).all()


def test_a_block_without_a_mask_sees_what_follows():
    torch.manual_seed(0)
    x = torch.randn(1, 5, 8)
    y = torch.cat((x[:, :4], torch.randn(1, 1, 8)), 1)
    for causal in (True, False):
        block = Block(8, 2, causal).requires_grad_(False)
        assert torch.allclose(block(x)[:, :4], block(y)[:, :4]) == causal
