"""Language models behind one protocol: a local `HuggingFace` model and an OpenAI-compatible server.

Both propose texts, score options, count what they use, and keep answers for the next run.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from math import inf, isfinite
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from .._validate import positive_int
from ._answers import AnswerCache, Backend, LanguageModelError, Usage, digest

__all__ = [
    "AnswerCache",
    "Endpoint",
    "HuggingFace",
    "LanguageModel",
    "LanguageModelError",
    "Usage",
]
_URL = re.compile(r"https?://([^/@?#\s]+)(/[^?#\s]*)?")
_LOGITS = 2**27  # numbers in one batch of scores: half a gigabyte
_EXTRA = "{} is not installed: pip install 'duality-book[llm]'"
_NO_SCORES = "does not score options (echo with logprobs, as vLLM has it): use HuggingFace instead"
_ADVICE = {
    401: "refuses the key: check OPENAI_API_KEY",
    403: "forbids this: check that the key in OPENAI_API_KEY may use this model",
    404: "does not have this: check OPENAI_MODEL, and OPENAI_BASE_URL (most end in /v1)",
    429: "has no rate or quota left for this: wait, or ask for fewer answers",
}
_FAILED = "has failed: try again later"
_REFUSED = "refuses the request: try a shorter prompt, a smaller max_tokens, another temperature"


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
        key = {"temperature": temperature, "max_tokens": max_tokens}
        key["seed"] = positive_int(seed, "seed", least=0)
        # A page that shows the name must not show this machine's folders.
        name = Path(model).name if Path(model).expanduser().is_dir() else str(model)
        super().__init__(name, cache, backend="huggingface", **key)
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._tokenizer, self._model, self._key["model"] = _load(model, self._device)
        stops = self._model.generation_config.eos_token_id
        self._stops = {stops} if isinstance(stops, int) else set(stops or ())

    def _ids(self, text: str, special: bool = True) -> list[int]:
        ids = self._tokenizer(text, add_special_tokens=special)["input_ids"]
        room = getattr(self._model.config, "max_position_embeddings", None) or len(ids) + 1
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
        room = getattr(self._model.config, "max_position_embeddings", None) or 2**31
        rows = torch.tensor([ids] * len(samples), device=self._device)
        with self._counted(), torch.no_grad():
            made = self._model.generate(
                rows,
                attention_mask=torch.ones_like(rows),
                do_sample=False,  # the noise does the sampling
                max_new_tokens=min(self._key["max_tokens"], room - len(ids)),
                pad_token_id=min(self._stops, default=0),
                logits_processor=self._noise(prompt, samples),
            )
        self.usage.prompt_tokens += len(ids)
        for row in made[:, len(ids) :].tolist():
            answer = list(takewhile(lambda token: token not in self._stops, row))
            self.usage.completion_tokens += min(len(answer) + 1, len(row))
            yield self._tokenizer.decode(answer, skip_special_tokens=True)

    def _noise(self, prompt: str, samples: list[int]) -> list[Any]:
        """Gumbel noise: the largest noisy logit is a sample. Each answer has its own generator."""
        heat, seed = self._key["temperature"], self._key["seed"]
        digests = [digest({"seed": seed, "prompt": prompt, "sample": i}) for i in samples]
        sources = [torch.Generator().manual_seed(int(text[:15], 16)) for text in digests]

        def noisy(_: Tensor, logits: Tensor) -> Tensor:
            draws = [torch.empty(logits.shape[1]).exponential_(generator=g) for g in sources]
            return logits / heat - torch.stack(draws).clamp_min(1e-30).log().to(logits.device)

        return [noisy] if heat else []

    def _scored(self, texts: list[str]) -> list[tuple[list[int], list[float]]]:
        lists, scored = [self._ids(text) for text in texts], []
        width = max(map(len, lists))
        batch = max(1, _LOGITS // (width * self._model.config.vocab_size))
        for chunk in (lists[i : i + batch] for i in range(0, len(lists), batch)):
            rows = torch.tensor([ids + [0] * (width - len(ids)) for ids in chunk])
            mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in chunk])
            rows, mask = rows.to(self._device), mask.to(self._device)
            with self._counted(), torch.no_grad():
                logits = self._model(rows, attention_mask=mask).logits[:, :-1].float()
                logs = logits.log_softmax(2).gather(2, rows[:, 1:, None])[..., 0].tolist()
            self.usage.prompt_tokens += int(mask.sum())
            scored += [(ids, [0.0, *log][: len(ids)]) for ids, log in zip(chunk, logs, strict=True)]
        return scored


def _load(model: str | Path, device: str) -> tuple[Any, Any, str]:
    """Tokenizer, model, and what tells it from any other under the same name."""
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging as bars
    except ImportError:
        raise LanguageModelError(_EXTRA.format("transformers")) from None
    folder = Path(model).expanduser()
    where = folder.resolve() if folder.is_dir() else str(model)
    options = {"trust_remote_code": False, "local_files_only": isinstance(model, Path)}
    is_loud = bars.is_progress_bar_enabled()
    try:
        if folder.is_dir():  # a download keeps its progress bar
            bars.disable_progress_bar()
        with torch.random.fork_rng():  # the weights are drawn before they are read
            tokenizer = AutoTokenizer.from_pretrained(where, **options)
            network = AutoModelForCausalLM.from_pretrained(where, **options)
    except Exception as error:  # files from anywhere raise anything
        raise LanguageModelError(
            f"cannot load the model {str(model)!r} ({type(error).__name__}): give a folder made by "
            "save_pretrained, or a name on huggingface.co and a network (HF_TOKEN if it is gated)."
        ) from None
    finally:
        if is_loud:
            bars.enable_progress_bar()
    state = getattr(network.config, "_commit_hash", None)
    if folder.is_dir():
        state = sorted((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in folder.iterdir())
    return tokenizer, network.to(device).eval(), f"{where} {state}"


class Endpoint(Backend):
    """A model behind an OpenAI-compatible server (Ollama, vLLM, a hosted one), through `openai`.

    `OPENAI_BASE_URL` and `OPENAI_MODEL` are used where the arguments are not. The key comes from
    `OPENAI_API_KEY` only and goes nowhere but to that server; a local one needs none.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        base_url: str | None = None,
        temperature: float = 1.0,
        max_tokens: int = 1024,
        timeout: float = 60.0,
        retries: int = 4,
        cache: AnswerCache | str | Path | bool = True,
    ) -> None:
        url = base_url or os.environ.get("OPENAI_BASE_URL")
        secret = os.environ.get("OPENAI_API_KEY", "").strip()
        name = model or os.environ.get("OPENAI_MODEL")
        if not (name and (url or secret)):
            raise LanguageModelError(
                "set OPENAI_MODEL, and OPENAI_BASE_URL (such as http://localhost:11434/v1, which "
                "needs no key) or OPENAI_API_KEY."
            )
        url = (url or "https://api.openai.com/v1").rstrip("/")
        # No password and no query: the HTTP library logs URLs.
        if not (parts := _URL.fullmatch(url)):
            raise LanguageModelError("OPENAI_BASE_URL must be like http://localhost:11434/v1.")
        self._host = parts[1]
        if not (secret.isascii() and secret.isprintable()):
            raise LanguageModelError("OPENAI_API_KEY has characters that no key has.")
        if not 0 < timeout < inf:
            raise ValueError(f"timeout must be a number of seconds above 0, not {timeout!r}.")
        key = {"url": url, "temperature": temperature, "max_tokens": max_tokens}
        super().__init__(name, cache, backend="endpoint", model=name, **key)
        try:
            from openai import OpenAI
        except ImportError:
            raise LanguageModelError(_EXTRA.format("openai")) from None
        logging.getLogger("openai._base_client").setLevel(logging.INFO)  # DEBUG tells prompts
        tries = positive_int(retries, "retries", least=0)
        self._client = OpenAI(
            api_key=secret or "none", base_url=url, timeout=timeout, max_retries=tries
        )
        self._forms = [("max_tokens", True), ("max_completion_tokens", True), ("max_tokens", False)]

    def _ask(self, prompt: str, samples: list[int]) -> Iterator[str]:
        left = len(samples)
        while left:  # a server may ignore n, but each reply has at least one choice
            for choice in self._chat(prompt, left)[:left]:
                left -= 1
                message = choice.get("message") if isinstance(choice, dict) else None
                content = message.get("content") if isinstance(message, dict) else None
                yield content if isinstance(content, str) else ""

    def _chat(self, prompt: str, n: int) -> list[Any]:
        """At least one choice. Some servers refuse `max_tokens`, others any `n` above 1."""
        fields = {"messages": [{"role": "user", "content": prompt}]}
        fields["temperature"] = self._key["temperature"]
        for form in list(self._forms):
            limit = {form[0]: self._key["max_tokens"]}
            try:
                reply = self._send("chat", n=n if form[1] else 1, **fields, **limit)
            except LanguageModelError as error:
                failure = error
                if error.status not in (400, 422):
                    break
            else:
                self._forms.sort(key=lambda other: other != form)  # begin with what works
                return reply["choices"]
        raise failure

    def _scored(self, texts: list[str]) -> list[tuple[list[str], list[float]]]:
        scored = []
        for text in texts:
            try:
                reply = self._send("text", prompt=text, max_tokens=1, echo=True, logprobs=1)
                made = (reply.get("usage") or {}).get("completion_tokens", 1)
                choice = reply["choices"][0]
                tokens = choice["logprobs"]["tokens"]
                end = len(tokens) - made  # the last is the model's own
                logs = [0.0, *choice["logprobs"]["token_logprobs"][1:end]]
                is_echo = text in choice["text"] and all(map(isfinite, logs))
            except (LookupError, TypeError):
                is_echo = False
            except LanguageModelError as error:
                if error.status not in (400, 404, 405, 422, 501):
                    raise
                is_echo = False
            if not is_echo:
                raise LanguageModelError(f"the server {self._host} {_NO_SCORES}.")
            scored.append((tokens[:end], logs))
        return scored

    def _send(self, kind: str, **fields: Any) -> dict[str, Any]:
        """One request, its reply as plain JSON: servers differ in all but the choices."""
        import openai

        to = self._client.chat.completions if kind == "chat" else self._client.completions
        code = None
        try:
            with self._counted():
                raw = to.with_raw_response.create(model=self.name, **fields)
                reply = json.loads(raw.http_response.content)
            usage = reply.get("usage") or {}
            self.usage.prompt_tokens += usage.get("prompt_tokens") or 0
            self.usage.completion_tokens += usage.get("completion_tokens") or 0
            if isinstance(reply["choices"], list) and reply["choices"]:
                return reply
            problem = "sent no choices: try another model"
        except openai.APITimeoutError:
            problem = "gave no answer in time: raise timeout or lower max_tokens"
        except openai.APIConnectionError:
            problem = "cannot be reached: is it running, and is OPENAI_BASE_URL right?"
        except openai.APIStatusError as error:
            code = error.status_code
            problem = f"{_ADVICE.get(code, _FAILED if code >= 500 else _REFUSED)} ({code})"
        except (openai.OpenAIError, ValueError, LookupError, TypeError, AttributeError):
            problem = "does not speak the OpenAI protocol: does OPENAI_BASE_URL end in /v1?"
        # Raised out here, where no library error, which may hold key and prompt, is attached.
        failure = LanguageModelError(f"the server {self._host}, model {self.name!r}, {problem}.")
        failure.status = code
        raise failure
