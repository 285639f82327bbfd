"""A vision-language model in miniature: an image and a question in, an answer in words out.

Built like InstructBLIP (Dai et al. 2023, arXiv 2305.06500): the words of the question become
queries, cross-attention lets each of them read a feature and a place from the image, a two-layer
network joins what they have read, and the result stands as a prefix of soft tokens before the
answer of a small GPT. (InstructBLIP shows the question to its language model once more.) What the
queries read are features, places and the distances between the places, without which relations are
learnt slowly. Rewards and exploration with vision-language models ask it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .gpt import END, Transformer
from .population import Network, PopulationLinear, Stack
from .vla import PAD, ImageEncoder, TextEncoder, Vocabulary

NO, YES, FIRST, SECOND = ANSWERS = ("no", "yes", "first", "second")
WHICH = "which"  # the word before a statement that asks in which of two pictures it is true


class VisionLanguage(Network):
    """The model.

    Args:
        vocabulary: the words; it must know `ANSWERS` and `WHICH`.
        seed: of the initial weights.
        size: side of the images in pixels.
        queries: what the words may look for in the image at once.
        slots: M, soft tokens that stand for a picture.
        width, layers, heads: of the GPT.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        seed: int = 0,
        size: int = 32,
        queries: int = 8,
        slots: int = 4,
        width: int = 64,
        layers: int = 1,
        heads: int = 4,
    ) -> None:
        super().__init__()
        number = vocabulary.number
        if missing := [word for word in (*ANSWERS, WHICH) if word not in number]:
            raise ValueError(f"the vocabulary must know the words {', '.join(missing)}.")
        self.vocabulary, self.seed, self.size = vocabulary, seed, size
        self.queries, self.slots = queries, slots
        self._words = {i: word for word, i in number.items()}
        one = [torch.Generator().manual_seed(seed)]
        self.image, self.text = ImageEncoder(size, one), TextEncoder(len(vocabulary), one)
        features, text = (x.weight.shape[-1] for x in (self.image.head, self.text.mix))
        self.query = PopulationLinear(text, queries * features, one, 2.0)
        gain = math.sqrt(2)
        self.read = queries * (2 + queries + features) + text  # numbers that the queries read
        self.fuse = Stack(
            PopulationLinear(self.read, 256, one, gain),
            nn.ReLU(inplace=True),
            PopulationLinear(256, 256, one, gain),
            nn.ReLU(inplace=True),
            PopulationLinear(256, slots * width, one, 0.5),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.slot = nn.Parameter(0.1 * torch.randn(2, slots, width))
            self.network = Transformer(len(vocabulary), width, layers, heads)
        with torch.no_grad():  # small logits cost the first hundred steps
            self.network.embedding.weight.mul_(5)

    def see(self, images: Tensor) -> Tensor:
        """Features [N, T, F] of the patches of uint8 images [N, S, S, 3]."""
        return self.image(images[None])[0]

    def attend(self, feature: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Where the queries of words [B, L] look, and what they read.

        Args:
            feature: [N, T, F] of `see`, with B a multiple of N: equally many questions of each.

        Returns:
            Attention over the patches [B, queries, T]; places, squared distances between them,
            features and the text's own vector, [B, read].
        """
        text = self.text(_trim(words)[None])  # [1, B, text]
        query = self.query(text)[0].unflatten(-1, (self.queries, -1))
        feature = feature.repeat_interleave(len(words) // len(feature), 0)
        look = (query @ feature.mT).softmax(-1)
        place = look @ self.image.place  # [B, queries, 2]
        apart = (place[:, :, None] - place[:, None]).square().sum(-1)
        read = (place, apart, look @ feature)
        return look, torch.cat([*(x.flatten(1) for x in read), text[0]], -1)

    def prefix(self, feature: Tensor, words: Tensor, which: int = 0) -> Tensor:
        """What a question sees of a picture, [B, M, width]; `which` of two it is."""
        read = self.attend(feature, words)[1]
        seen: Tensor = self.fuse(read[None])[0].unflatten(-1, (self.slots, -1))
        return seen + self.slot[which]

    def forward(self, prefix: Tensor, answer: Tensor) -> Tensor:
        """Logits [B, T + 1, V] of each token of answers [B, T] and of what follows them.

        Args:
            prefix: [B, M, width], what a question saw of one picture, or of two after each other.
        """
        end = answer.new_full((len(answer), 1), END)
        logits = self.network(torch.cat((end, answer), 1), prefix=prefix)
        return logits[:, prefix.shape[1] :]

    def _choice(self, prefix: Tensor, options: tuple[str, str]) -> Tensor:
        """The probability [B] of the second of two one-word answers, where one must be given."""
        logits = self(prefix, self.nothing(len(prefix)))[:, 0]
        first, second = (logits[:, self.vocabulary.number[word]] for word in options)
        return torch.sigmoid(second - first)

    def nothing(self, count: int) -> Tensor:
        """Answers of which no word is given yet, [count, 0]."""
        return torch.zeros(count, 0, dtype=torch.long, device=self.slot.device)

    def encode(self, sentences: Sequence[str]) -> Tensor:
        """The words of questions [B, L] on the device of the model."""
        return self.vocabulary.encode(sentences).to(self.slot.device)

    def p_yes(self, images: Tensor, statements: str | Sequence[str]) -> Tensor:
        """How probable the answer "yes" is, [B], for uint8 images [B, S, S, 3]."""
        words = self.encode(one_each(statements, images))
        return self._choice(self.prefix(self.see(images), words), (NO, YES))

    def compare(self, first: Tensor, second: Tensor, statements: str | Sequence[str]) -> Tensor:
        """How probable it is, [B], that a statement is true of the second picture."""
        asked = [f"{WHICH} {text}" for text in one_each(statements, first)]
        words = self.encode(asked)
        seen = [self.prefix(self.see(x), words, i) for i, x in enumerate((first, second))]
        return self._choice(torch.cat(seen, 1), (FIRST, SECOND))

    @torch.no_grad()
    def describe(
        self, images: Tensor, questions: str | Sequence[str], longest: int = 12
    ) -> list[str]:
        """The likeliest answers in words."""
        words = self.encode(one_each(questions, images))
        prefix, answer = self.prefix(self.see(images), words), self.nothing(len(words))
        for _ in range(longest):
            token = self(prefix, answer)[:, -1].argmax(-1, keepdim=True)
            answer = torch.cat((answer, token), 1)
        rows = answer.tolist()
        ends = [row.index(END) if END in row else longest for row in rows]
        return [
            " ".join(self._words.get(i, "?") for i in row[:end])
            for row, end in zip(rows, ends, strict=True)
        ]


def _trim(words: Tensor) -> Tensor:
    """Without the columns in which all rows are padded."""
    return words[:, : int((words != PAD).any(0).sum())]


def answer_loss(logits: Tensor, answer: Tensor) -> Tensor:
    """Mean cross-entropy of answers [B, T] and of the END after each, given logits [B, T + 1, V].

    Answers are padded with END; only the first of them counts.
    """
    target = F.pad(answer, (0, 1), value=END)
    ended = (target == END).cumsum(1)
    counts = (ended == 0) | ((target == END) & (ended == 1))
    loss = F.cross_entropy(logits.mT, target, reduction="none")
    return (loss * counts).sum() / counts.sum()


def one_each(texts: str | Sequence[str], images: Tensor) -> list[str]:
    """A text for each picture: one for all, or as many as there are.

    Raises:
        ValueError: another number of texts than of pictures.
    """
    each = [texts] * len(images) if isinstance(texts, str) else list(texts)
    if len(each) != len(images):
        raise ValueError(f"{len(images)} pictures need as many texts, not {len(each)}.")
    return each
