"""The book's own language model as a tool: tokens, training on documents, answers, scores.

It works offline and costs nothing, behind the same two methods as any larger model
(`language.LanguageModel`): `propose` and `logprob`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import tokenizers
import torch
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from .._validate import positive_int
from ..models.gpt import END, Transformer, fit, log_probs, sample

# Pieces that merges do not cross: a factor of a product, a number, an item of a list, a line end.
_PIECES = r" \*[^\n]+?(?= \*|\n)|[0-9.]+|[,;+]?[^,;+*:\n0-9]+:?|\n|."


class Tokenizer:
    """Byte-pair encoding (Sennrich et al. 2016) learnt from a corpus; it can spell any text."""

    def __init__(self, documents: Sequence[str], size: int = 1024) -> None:
        split = pre_tokenizers.Split(Regex(_PIECES), "isolated")
        to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        self._bpe = tokenizers.Tokenizer(models.BPE())
        self._bpe.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
        self._bpe.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            min_frequency=max(2, len(documents) // 300),
            special_tokens=["<end>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        self._bpe.train_from_iterator(documents, trainer)
        self._bpe.encode_special_tokens = True  # no text can spell END

    def __len__(self) -> int:
        return self._bpe.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without an `END`."""
        return self._bpe.encode(text).ids

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of many texts; in parts, because an encoding is 100 times its text."""
        parts = (texts[i : i + 256] for i in range(0, len(texts), 256))
        return [e.ids for part in parts for e in self._bpe.encode_batch_fast(part)]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of these tokens; an `END` says nothing."""
        return self._bpe.decode(tokens)


class SmallModel:
    """The small model as a tool: it continues a prompt, and says how likely it finds options.

    Args:
        stop: an answer ends before the first of these strings.
    """

    name = "small GPT"

    def __init__(
        self,
        tokenizer: Tokenizer,
        network: Transformer,
        seed: int = 0,
        temperature: float = 1.0,
        top_k: int = 0,
        stop: Sequence[str] = ("feedback:",),
    ) -> None:
        self.tokenizer, self.network, self.stop = tokenizer, network, tuple(stop)
        self.temperature, self.top_k = temperature, top_k
        self.generator = torch.Generator().manual_seed(seed)

    def propose(self, prompt: str, n: int) -> list[str]:
        """n continuations, each after the prompt's last line `def ...:`, if it has one."""
        openings = [line for line in prompt.splitlines(True) if line.startswith("def ")]
        opening = "".join(openings[-1:])
        ids = self.tokenizer.encode(prompt)
        settings = (self.generator, self.temperature, self.top_k)
        answers = sample(self.network, ids, positive_int(n, "n"), *settings)
        texts = [self.tokenizer.decode(answer) for answer in answers]
        for stop in self.stop:
            texts = [text.split(stop)[0] for text in texts]
        return [opening + text for text in texts]

    @torch.inference_mode()
    def logprob(self, prompt: str, options: Sequence[str]) -> Tensor:
        """Mean log-probability per token of each option after the prompt, [len(options)].

        Options and prompt are tokenised apart, so that no token crosses the border.
        """
        if isinstance(options, str) or not options or not all(options):
            raise ValueError("logprob needs a list of at least one option, none of them empty.")
        answers = self.tokenizer.encode_all(list(options))
        values, real = log_probs(self.network, self.tokenizer.encode(prompt), answers)
        return values.sum(1) / real.sum(1)

    def copy(self, seed: int) -> SmallModel:
        """The same model with weights and random numbers of its own."""
        network = copy.deepcopy(self.network)
        settings = (self.temperature, self.top_k, self.stop)
        return SmallModel(self.tokenizer, network, seed, *settings)


def train(
    documents: Sequence[str],
    steps: int,
    seed: int = 0,
    width: int = 64,
    layers: int = 3,
    progress: bool = True,
) -> tuple[SmallModel, list[float]]:
    """Learn tokens and weights from documents; also returns the loss of each step."""
    tokenizer = Tokenizer(documents[:6000])
    stream = [token for ids in tokenizer.encode_all(documents) for token in (END, *ids)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Transformer(len(tokenizer), width, layers)
    losses = fit(network, torch.tensor(stream), steps, seed, progress=progress)
    return SmallModel(tokenizer, network.requires_grad_(False), seed), losses
