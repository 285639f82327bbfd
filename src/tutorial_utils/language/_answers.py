"""What every back-end of a language model shares: the count, the cache, checked input, scores."""

from __future__ import annotations

import hashlib
import json
import re
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from math import isfinite
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from .._disk import keep, resolved
from .._settings import setting
from .._validate import positive_int

EXTRA = "{} is not installed: pip install 'duality-book[llm]'"
_OWN_FILE = re.compile(r"[0-9a-f]{64}\.(\w+\.tmp|json)")


class LanguageModelError(RuntimeError):
    """A model cannot be loaded, reached or understood: one line that says what to do."""

    status: int | None = None  # of a server's refusal, as in HTTP


@dataclass
class Usage:
    """What a model has used so far; `cached` answers cost nothing."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    cached: int = 0

    def __str__(self) -> str:
        calls = f"{self.calls:,} call{'s' * (self.calls != 1)}"
        tokens = f"{self.prompt_tokens:,} + {self.completion_tokens:,} tokens"
        cached = f"{self.cached:,} answer{'s' * (self.cached != 1)} from the cache"
        return f"{calls}, {tokens}, {self.seconds:,.0f} s; {cached}"


class AnswerCache:
    """Answers on disk, one file each, which only the user may read.

    By default in `DUALITY_CACHE`, or `~/.cache/duality-book/answers`. `DUALITY_CACHE=off` turns
    every cache off, also one with a folder.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        where = setting("DUALITY_CACHE") or "~/.cache/duality-book/answers"
        self.folder = None if where == "off" else resolved(folder or where)

    def get(self, key: Mapping[str, object]) -> str | None:
        """The answer under `key`; None where there is none or its file is damaged."""
        if self.folder is None:
            return None
        name = digest(key)
        try:
            entry = json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
            answer = entry["answer"] if entry["entry"] == name else None
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return answer if isinstance(answer, str) else None

    def put(self, key: Mapping[str, object], answer: str) -> None:
        """Keep an answer; where the disk refuses, one line of warning is all that happens."""
        if self.folder is None:
            return
        name = digest(key)  # stands for the prompt, which is not written
        entry = {k: v for k, v in key.items() if k != "prompt"} | {"entry": name, "answer": answer}
        keep(self.folder / f"{name}.json", json.dumps(entry).encode(), "answers")

    def clear(self) -> None:
        """Remove every answer, and no file that is not the cache's own."""
        for path in self.folder.glob("*") if self.folder else ():
            if _OWN_FILE.fullmatch(path.name) and path.is_file():
                path.unlink(missing_ok=True)


def digest(key: Mapping[str, object]) -> str:
    """What stands for a question in the cache: 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


class Backend(ABC):
    """What both back-ends share: checked input, the cache, the count, the mean of a score."""

    def __init__(
        self,
        name: str,
        cache: AnswerCache | str | Path | bool,
        temperature: float,
        max_tokens: int,
        **which: str | int,
    ) -> None:
        if not (isfinite(temperature) and temperature >= 0):
            raise ValueError(f"temperature must be at least 0, not {temperature!r}.")
        self.name, self.usage = name, Usage()
        self._temperature = float(temperature)
        self._max_tokens = positive_int(max_tokens, "max_tokens")
        self._drawn: Counter[str] = Counter()  # answers so far, per prompt
        if cache is True or isinstance(cache, str | Path):
            cache = AnswerCache(None if cache is True else cache)
        self._cache = cache or None
        self._key = which | {"temperature": self._temperature, "max_tokens": self._max_tokens}

    @abstractmethod
    def _ask(self, prompt: str, samples: list[int]) -> Iterator[str]:
        """One answer for each of these indices, none of which is in the cache."""

    @abstractmethod
    def _scored(self, texts: list[str]) -> Sequence[tuple[Sequence[object], list[float]]]:
        """The tokens of each text, and the log-probability of each given those before it.

        Where all texts begin alike, a back-end may give 0 for what they share.
        """

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def propose(self, prompt: str, n: int) -> list[str]:
        """`n` new answers to the prompt, in order; an empty one is `""`.

        Asked again, the same object draws further answers; a new object begins anew, and finds in
        the cache what an earlier one was told.

        Raises:
            ValueError: the prompt is empty, or `n` is not a whole number of at least 1.
            LanguageModelError: one line that says what to do.
        """
        _check_texts(prompt)
        asking = digest({"prompt": prompt})  # the prompt itself is kept nowhere
        first = self._drawn[asking]
        samples = range(first, first + positive_int(n, "n"))
        keys = {i: self._key | {"prompt": prompt, "sample": i} for i in samples}
        found = {i: self._cache.get(key) if self._cache else None for i, key in keys.items()}
        answers = {i: answer for i, answer in found.items() if answer is not None}
        missing = [i for i in samples if i not in answers]
        self.usage.cached += len(answers)
        # One by one: what came before an error is kept, because it has been paid for.
        asked = self._ask(prompt, missing) if missing else ()
        for i, answer in zip(missing, asked, strict=True):
            answers[i] = answer
            if self._cache:
                self._cache.put(keys[i], answer)
        self._drawn[asking] += n
        return [answers[i] for i in samples]

    def logprob(self, prompt: str, options: Sequence[str]) -> Tensor:
        """Mean log-probability per token of each option after the prompt [options], in nats.

        Prompt and prompt + option are tokenised as plain text, without a chat template. The
        option's tokens are those after the last that both share; one that straddles the boundary
        counts whole, so end the prompt where a token ends, for example with a newline.

        Raises:
            ValueError: no options, an empty text, or no token that is the option's own.
            LanguageModelError: one line that says what to do.
        """
        if isinstance(options, str) or not len(options):
            raise ValueError("options must be a list of at least one text.")
        _check_texts(prompt, *options)
        (head, _), *scored = self._scored([prompt, *(prompt + option for option in options)])
        means = []
        for tokens, logs in scored:
            pairs = zip(head, tokens, strict=False)
            start = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            if not 0 < start < len(tokens):
                raise ValueError("the prompt or an option has no token of its own.")
            means.append(fmean(logs[start:]))
        return torch.tensor(means)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        start = time.perf_counter()
        self.usage.calls += 1
        try:
            yield
        finally:
            self.usage.seconds += time.perf_counter() - start


def _check_texts(*texts: object) -> None:
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError("a prompt and an option must be a text that is not empty.")
