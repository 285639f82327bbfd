"""Language models behind one protocol: a local `HuggingFace` model and an OpenAI-compatible server.

Both propose texts, score options, count what they use, and keep answers for the next run. Reward
design asks them for programs, the chapter on planning with LLMs for the next skill. `smollm`
is the real small model that the book measures beside its own.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from itertools import takewhile
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from .._disk import cache_folder
from .._settings import setting
from .._validate import positive_int
from ._answers import EXTRA, AnswerCache, Backend, LanguageModelError, Usage, digest
from ._endpoint import Endpoint

__all__ = [
    "AnswerCache",
    "Endpoint",
    "HuggingFace",
    "LanguageModel",
    "LanguageModelError",
    "Usage",
    "smollm",
]
_LOGITS = 2**27  # numbers in one batch of scores: half a gigabyte


@runtime_checkable
class LanguageModel(Protocol):
    """What the book asks of a language model: `n` answers, and scores of options [options]."""

    name: str

    def propose(self, prompt: str, n: int) -> list[str]: ...
    def logprob(self, prompt: str, options: Sequence[str]) -> Tensor: ...


class HuggingFace(Backend):
    """A causal language model in a folder or on the hub, through `transformers`.

    Answer i depends on the seed, the prompt and i, not on how many are asked for; the global random
    numbers stay as they are. Temperature 0 takes the likeliest tokens.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        temperature: float = 1.0,
        max_tokens: int = 512,
        device: str | None = None,
        seed: int = 0,
        cache: AnswerCache | str | Path | bool = True,
    ) -> None:
        self._seed = positive_int(seed, "seed", least=0)
        # A page that shows the name must not show this machine's folders.
        name = Path(model).name if Path(model).expanduser().is_dir() else str(model)
        super().__init__(
            name, cache, temperature, max_tokens, backend="huggingface", seed=self._seed
        )
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        kinds = ("AutoTokenizer", "AutoModelForCausalLM")
        self._tokenizer, self._model, self._key["model"] = load_pretrained(
            model, self._device, *kinds
        )
        # Of a model that also sees, only the part that reads and writes is used.
        self._config = self._model.config.get_text_config(decoder=True)
        stops = self._model.generation_config.eos_token_id
        self._stops = {stops} if isinstance(stops, int) else set(stops or ())
        self._kept: tuple[list[int], Any] = [], None  # tokens read last, their keys and values

    def _ids(self, text: str, special: bool = True) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=special)["input_ids"]
        room = getattr(self._config, "max_position_embeddings", None) or len(ids) + 1
        if not 0 < len(ids) < room:
            raise LanguageModelError(f"{self.name} takes 1 to {room - 1} tokens, not {len(ids)}.")
        return ids

    def _ask(self, prompt: str, samples: list[int]) -> Iterator[str]:
        text, has_chat = prompt, bool(getattr(self._tokenizer, "chat_template", None))
        if has_chat:
            turns = [{"role": "user", "content": prompt}]
            form = {"tokenize": False, "add_generation_prompt": True}
            text = self._tokenizer.apply_chat_template(turns, **form)
        ids = self._ids(text, special=not has_chat)
        room = getattr(self._config, "max_position_embeddings", None) or 2**31
        rows = torch.tensor([ids] * len(samples), device=self._device)
        with self._counted(), torch.no_grad():
            made = self._model.generate(
                rows,
                attention_mask=torch.ones_like(rows),
                do_sample=False,  # the noise does the sampling
                max_new_tokens=min(self._max_tokens, room - len(ids)),
                pad_token_id=min(self._stops, default=0),
                logits_processor=self._noise(prompt, samples),
            )
        self.usage.prompt_tokens += len(ids)
        for row in made[:, len(ids) :].tolist():
            answer = list(takewhile(lambda token: token not in self._stops, row))
            self.usage.completion_tokens += min(len(answer) + 1, len(row))
            yield self._tokenizer.decode(answer, skip_special_tokens=True)

    def _noise(self, prompt: str, samples: list[int]) -> list[Callable[[Tensor, Tensor], Tensor]]:
        """Gumbel noise: the largest noisy logit is a sample. Each answer has its own generator."""
        heat = self._temperature
        digests = [digest({"seed": self._seed, "prompt": prompt, "sample": i}) for i in samples]
        sources = [torch.Generator().manual_seed(int(text[:15], 16)) for text in digests]

        def noisy(_: Tensor, logits: Tensor) -> Tensor:
            draws = [torch.empty(logits.shape[1]).exponential_(generator=g) for g in sources]
            return logits / heat - torch.stack(draws).clamp_min(1e-30).log().to(logits.device)

        return [noisy] if heat else []

    def _scored(self, texts: list[str]) -> list[tuple[list[int], list[float]]]:
        lists, scored = [self._ids(text) for text in texts], list[list[float]]()
        known = lists[0][: max(0, _alike(lists) - 1)]  # the last one predicts what is new
        with self._counted(), torch.no_grad():
            past, start = self._read(known)
        new = [ids for ids in lists if len(ids) > start + 1]
        width = max(map(len, lists)) - start
        batch = max(1, _LOGITS // (width * self._config.vocab_size))
        for chunk in (new[i : i + batch] for i in range(0, len(new), batch)):
            rest = [start + width - len(ids) for ids in chunk]  # of padding
            rows = torch.tensor([ids[start:] + [0] * n for ids, n in zip(chunk, rest, strict=True)])
            mask = torch.tensor([[1] * (start + width - n) + [0] * n for n in rest])
            rows, mask = rows.to(self._device), mask.to(self._device)
            if longer := deepcopy(past):  # by what is read
                longer.batch_repeat_interleave(len(chunk))
            with self._counted(), torch.no_grad():
                made = self._model(rows, attention_mask=mask, past_key_values=longer).logits
                logs = made[:, :-1].float().log_softmax(2).gather(2, rows[:, 1:, None])[..., 0]
            self.usage.prompt_tokens += int(mask[:, start:].sum())
            scored += logs.tolist()
        found = ([0.0] * (start + 1) + (scored.pop(0) if ids in new else []) for ids in lists)
        return [(ids, logs[: len(ids)]) for ids, logs in zip(lists, found, strict=True)]

    def _read(self, ids: list[int]) -> tuple[Any, int]:
        """Keys and values of a beginning that texts share, and its length; 0 if it cannot be kept.

        Prompts often begin alike. What this one shares with the last is not read again.
        """
        if not ids:
            return None, 0
        (known, past), self._kept = self._kept, ([], None)
        same = _alike([known, ids])
        if not getattr(past, "is_croppable", False):  # a window that moved cannot go back
            same, past = 0, None
        elif same < len(known):
            past.crop(same - len(known))
        if new := ids[same:]:
            rows = torch.tensor([new], device=self._device)
            past = self._model(rows, past_key_values=past, use_cache=True).get("past_key_values")
            self.usage.prompt_tokens += len(new)
        if not hasattr(past, "batch_repeat_interleave"):
            return None, 0
        self._kept = ids, past
        return past, len(ids)


def _alike(lists: list[list[int]]) -> int:
    """How many tokens all lists begin with."""
    columns = zip(*lists, strict=False)
    return sum(1 for _ in takewhile(lambda column: len({*column}) == 1, columns))


def smollm(**options: Any) -> HuggingFace | None:
    """SmolLM2-135M-Instruct (Ben Allal et al., 2025), or None and a line that says how to get it.

    `DUALITY_SMOLLM` names a folder or a model of the hub; without it, the folder that `make smollm`
    wrote into the cache of this machine is taken.
    """
    folder = cache_folder()
    named: str | Path = setting("DUALITY_SMOLLM")
    if not named and folder and (folder / "smollm2").is_dir():
        named = folder / "smollm2"
    if named:
        return HuggingFace(named, **options)
    print(
        "No real model here: run make smollm in a checkout of the book, or set DUALITY_SMOLLM = "
        '"HuggingFaceTB/SmolLM2-135M-Instruct" in a cell above (a download of 270 MB).'
    )
    return None


def load_pretrained(model: str | Path, device: str, *kinds: str) -> tuple[Any, Any, str]:
    """What `transformers` reads inputs with, the model, and what tells it from its namesakes.

    Args:
        kinds: the names of two automatic classes, such as "AutoTokenizer" and "AutoModel".

    Raises:
        LanguageModelError: one line: `transformers` is missing, or the model cannot be loaded.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # tqdm misses ipywidgets in a notebook
            import transformers
            from transformers.utils import logging as bars
    except ImportError:
        raise LanguageModelError(EXTRA.format("transformers")) from None
    folder = Path(model).expanduser()
    where = folder.resolve() if folder.is_dir() else str(model)
    options = {"trust_remote_code": False, "local_files_only": isinstance(model, Path)}
    hide: Callable[[], None] = bars.disable_progress_bar
    show: Callable[[], None] = bars.enable_progress_bar
    is_loud = bars.is_progress_bar_enabled()
    try:
        if folder.is_dir():  # a download keeps its progress bar
            hide()
        with torch.random.fork_rng():  # the weights are drawn before they are read
            reads, loaded = (
                getattr(transformers, x).from_pretrained(where, **options) for x in kinds
            )
    except Exception as error:  # files from anywhere raise anything
        raise LanguageModelError(
            f"cannot load the model {str(model)!r} ({type(error).__name__}): give a folder made by "
            "save_pretrained, or a name on huggingface.co and a network (HF_TOKEN if it is gated)."
        ) from None
    finally:
        if is_loud:
            show()
    state = getattr(loaded.config, "_commit_hash", None)
    if folder.is_dir():
        state = sorted((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in folder.iterdir())
    return reads, loaded.to(device).eval(), f"{where} {state}"
