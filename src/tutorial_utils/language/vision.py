"""Vision-language models behind one protocol: what a published one must answer in the book.

`models.dual_encoder` and `models.vlm` are the book's own; these are the adapters for real ones, of
the CLIP family and of the chat family, by folder or by name on the hub. Pictures are uint8
[B, S, S, 3]. Rewards and exploration with vision-language models, coming chapters, take either.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.vlm import one_each
from ._answers import LanguageModelError
from .backends import load_pretrained

__all__ = ["Encoder", "HuggingFaceChat", "HuggingFaceEncoder", "Judge"]
_BATCH = 16  # pictures that a large model sees at once


@runtime_checkable
class Encoder(Protocol):
    """Says how well sentences fit pictures: cosines [B]."""

    def score(self, images: Tensor, sentences: str | Sequence[str]) -> Tensor: ...


@runtime_checkable
class Judge(Protocol):
    """Answers questions about pictures with probabilities [B]."""

    def p_yes(self, images: Tensor, statements: str | Sequence[str]) -> Tensor: ...
    def compare(self, first: Tensor, second: Tensor, statements: str | Sequence[str]) -> Tensor: ...


class HuggingFaceEncoder:
    """A dual encoder of `transformers`: CLIP, SigLIP and their relatives."""

    def __init__(self, model: str | Path, device: str | None = None) -> None:
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._reads, self._model, _ = load_pretrained(
            model, self._device, "AutoProcessor", "AutoModel"
        )

    @torch.no_grad()
    def score(self, images: Tensor, sentences: str | Sequence[str]) -> Tensor:
        """The cosine [B] of each picture and its sentence."""
        texts, parts = one_each(sentences, images), []
        for i in range(0, len(images), _BATCH):
            data = self._reads(
                text=texts[i : i + _BATCH],
                images=list(images[i : i + _BATCH].cpu().numpy()),
                return_tensors="pt",
                padding=True,
            ).to(self._device)
            out = self._model(**data)
            parts.append(F.cosine_similarity(out.image_embeds, out.text_embeds).cpu())
        return torch.cat(parts)


class HuggingFaceChat:
    """A model of `transformers` that chats about pictures; the probability of a token is read."""

    def __init__(self, model: str | Path, device: str | None = None) -> None:
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        kinds = ("AutoProcessor", "AutoModelForImageTextToText")
        self._reads, self._model, _ = load_pretrained(model, self._device, *kinds)
        if not getattr(self._reads, "chat_template", None):
            raise LanguageModelError(f"{str(model)!r} has no chat template: name a chat model.")

    def p_yes(self, images: Tensor, statements: str | Sequence[str]) -> Tensor:
        """How probable "yes" is beside "no", [B], when asked whether a statement is true."""
        asked = [
            f"Is this true of the picture: {text}? Answer yes or no."
            for text in one_each(statements, images)
        ]
        return self._choice([images], asked, ("no", "yes"))

    def compare(self, first: Tensor, second: Tensor, statements: str | Sequence[str]) -> Tensor:
        """How probable it is, [B], that a statement fits the second picture better."""
        asked = [
            f"Which picture fits better, 1 or 2: {text}? Answer 1 or 2."
            for text in one_each(statements, first)
        ]
        return self._choice([first, second], asked, ("1", "2"))

    @torch.no_grad()
    def _choice(self, seen: list[Tensor], asked: list[str], options: tuple[str, str]) -> Tensor:
        ids = [self._tokens(word) for word in options]
        chances = []
        for i, question in enumerate(asked):
            pictures = [images[i].cpu().numpy() for images in seen]
            content = [{"type": "image"} for _ in pictures] + [{"type": "text", "text": question}]
            prompt = self._reads.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True
            )
            data = self._reads(text=prompt, images=pictures, return_tensors="pt").to(self._device)
            logs = self._model(**data).logits[0, -1].float()
            no, yes = (logs[tokens].logsumexp(0) for tokens in ids)
            chances.append(torch.sigmoid(yes - no))
        return torch.stack(chances).cpu()

    def _tokens(self, word: str) -> list[int]:
        """Every way in which the word is one token: with a capital, with a space before it."""
        ways = {word, word.capitalize(), f" {word}", f" {word.capitalize()}"}
        tokenizer = self._reads.tokenizer
        spelt = (tokenizer(way, add_special_tokens=False)["input_ids"] for way in ways)
        found = sorted({ids[0] for ids in spelt if len(ids) == 1})
        if not found:
            raise LanguageModelError(f"this model has no single token for {word!r}.")
        return found
