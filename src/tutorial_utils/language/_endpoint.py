"""A model behind an OpenAI-compatible server, and what the replies of such servers mean."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from math import inf, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from weakref import finalize

from .._validate import positive_int
from ._answers import EXTRA, AnswerCache, Backend, LanguageModelError

if TYPE_CHECKING:
    from openai import OpenAI

_URL = re.compile(r"https?://([^/@?#\s]+)(/[^?#\s]*)?")
_NO_SCORES = "does not score options (echo with logprobs, as vLLM has it): use HuggingFace instead"
_NO_PROTOCOL = "does not speak the OpenAI protocol: check that OPENAI_BASE_URL ends in /v1"
_ADVICE = {
    401: "refuses the key: check OPENAI_API_KEY",
    402: "has no credit left for this key: add credit, or use another server",
    403: "forbids this: check that the key in OPENAI_API_KEY may use this model",
    404: "does not have this: check OPENAI_MODEL, and OPENAI_BASE_URL (most end in /v1)",
    405: "takes no such request at this URL: check OPENAI_BASE_URL (most end in /v1)",
    429: "has no rate or quota left for this: wait, or ask for fewer answers",
}
_FAILED = "has failed: try again later"
_REFUSED = "refuses the request: try a shorter prompt, a smaller max_tokens, another temperature"
_ENDED = {  # before a word of the answer
    "length": "ended the answer at max_tokens, before its first word: raise max_tokens",
    "content_filter": "withholds the answer, because of its filter: try another prompt",
}


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
        super().__init__(
            name, cache, temperature, max_tokens, backend="endpoint", model=name, url=url
        )
        tries = positive_int(retries, "retries", least=0)
        self._client = _client(api_key=secret or "none", base_url=url, timeout=timeout, tries=tries)
        finalize(self, self._client.close)
        limits = ("max_tokens", "max_completion_tokens")
        self._forms = [(limit, most) for most in (sys.maxsize, 1) for limit in limits]

    def _ask(self, prompt: str, samples: list[int]) -> Iterator[str]:
        left = len(samples)
        while left:  # a server may ignore n, but each reply has at least one choice
            read = [_read(choice) for choice in self._chat(prompt, left)[:left]]
            left -= len(read)
            for text, problem in sorted(read, key=lambda answer: answer[1] is not None):
                if problem:  # what is paid for and whole comes before it
                    raise self._failure(problem)
                yield text

    def _chat(self, prompt: str, n: int) -> list[Any]:
        """At least one choice. Some servers refuse `max_tokens`, some `n` above 1, some both."""
        fields = {
            "messages": [{"role": "user", "content": prompt}],
            "temperature": self._temperature,
        }
        for limit, count in dict.fromkeys((limit, min(n, most)) for limit, most in self._forms):
            try:
                choices, _ = self._send("chat", n=count, **fields, **{limit: self._max_tokens})
            except LanguageModelError as error:
                failure = error
                if error.status not in (400, 422):
                    break
            else:  # begin with what works
                self._forms.sort(key=lambda form: (form[0], min(n, form[1])) != (limit, count))
                return choices
        raise failure

    def _scored(self, texts: list[str]) -> list[tuple[list[str], list[float]]]:
        scored = []
        for text in texts:
            try:
                (choice, *_), made = self._send(
                    "text", prompt=text, max_tokens=1, echo=True, logprobs=1
                )
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

    def _send(self, kind: str, **fields: Any) -> tuple[list[Any], int]:
        """Choices of one request, as plain JSON, and how many tokens were made for them.

        Servers differ in all but the choices; those that failed are not among them.
        """
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
            if isinstance(choices := reply["choices"], list):
                choices = [choice for choice in choices if not _status(choice, 500)]
                if choices:
                    return choices, usage.get("completion_tokens", 1)
            problem = "sent no choices: try another model"
        except openai.APITimeoutError:
            problem = "gave no answer in time: raise timeout or lower max_tokens"
        except openai.APIConnectionError:
            problem = "cannot be reached: check that it is running, and OPENAI_BASE_URL"
        except openai.APIStatusError as error:
            code = error.status_code
            problem = f"{_ADVICE.get(code, _FAILED if code >= 500 else _REFUSED)} ({code})"
        except (openai.OpenAIError, ValueError, LookupError, TypeError, AttributeError):
            problem = _NO_PROTOCOL
        # Raised out here, where no library error, which may hold key and prompt, is attached.
        raise self._failure(problem, code)

    def _failure(self, problem: str, status: int | None = None) -> LanguageModelError:
        failure = LanguageModelError(f"the server {self._host}, model {self.name!r}, {problem}.")
        failure.status = status
        return failure


def _client(api_key: str, base_url: str, timeout: float, tries: int) -> OpenAI:
    try:
        from openai import DefaultHttpxClient, OpenAI
    except ImportError:
        raise LanguageModelError(EXTRA.format("openai")) from None
    logging.getLogger("openai._base_client").setLevel(logging.INFO)  # DEBUG tells prompts
    web = DefaultHttpxClient(event_hooks={"response": [_restate]})
    return OpenAI(
        api_key=api_key, base_url=base_url, timeout=timeout, max_retries=tries, http_client=web
    )


class _Response(Protocol):
    """What a reply is in each of the HTTP libraries that `openai` has used."""

    status_code: int

    def read(self) -> bytes: ...


def _restate(response: _Response) -> None:
    """Some servers tell a failure in a reply of success: give it the status that it names.

    The client then tries again or raises, as for any other failure.
    """
    try:
        reply = json.loads(response.read()) if response.status_code < 300 else {}
        statuses = [_status(reply, 0) or _status(c, 500) for c in reply.get("choices") or [None]]
    except (ValueError, TypeError, AttributeError):
        return  # where the choices are read, this is told
    if all(statuses):
        response.status_code = statuses[0]


def _status(part: Any, vague: int) -> int:
    """The HTTP status that a reply or a choice gives its own failure; 0 where it has not failed.

    A failure without such a number has the status `vague`.
    """
    if not isinstance(part, dict):
        return 0
    error = part.get("error")
    code = str(error.get("code")) if isinstance(error, dict) else ""
    if code.isdecimal() and 400 <= int(code) < 600:
        return int(code)
    return vague if error or part.get("finish_reason") == "error" else 0


def _read(choice: Any) -> tuple[str, str | None]:
    """The text of a choice, and what is wrong with it; a refusal in words is an answer."""
    try:
        message, end = choice["message"], choice.get("finish_reason")
        text = message.get("content")
        if isinstance(text, list):
            text = "".join(part["text"] for part in text if part["type"] == "text")
        text = text or message.get("refusal") or ""
        return text, None if text.strip() else _ENDED.get(end)
    except (LookupError, TypeError, AttributeError):
        return "", _NO_PROTOCOL
