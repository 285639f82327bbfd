"""Language models: a tiny real one on disk, and a real local server that speaks the protocol."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import stat
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from huggingface_hub import constants as hub

from tutorial_utils import _disk
from tutorial_utils.language import backends as language
from tutorial_utils.language.backends import (
    AnswerCache,
    Endpoint,
    HuggingFace,
    LanguageModel,
    LanguageModelError,
    Usage,
    smollm,
)

SECRET = "sk-test-5e1f0c0ffee"
PROMPT = "write a reward for the reach task"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, tmp_path):
    for name in ("OPENAI_BASE_URL", "OPENAI_MODEL", "OPENAI_LOG", "OPENAI_ORG_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("DUALITY_CACHE", str(tmp_path / "answers"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)


def one_line(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert text
    assert "\n" not in text
    assert SECRET not in repr(error.value)
    assert PROMPT not in text
    # What a traceback would print besides: nothing that holds the key or the prompt.
    cause = error.value.__cause__ or error.value.__context__
    assert cause is None or error.value.__suppress_context__
    return text


# The server


def completion(*contents, **message) -> dict:
    choices = [
        {
            "index": i,
            "message": {"role": "assistant", "content": content} | message,
            "finish_reason": "stop",
        }
        for i, content in enumerate(contents)
    ]
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "small",
        "choices": choices,
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 3 * len(contents),
            "total_tokens": 7 + 3 * len(contents),
        },
    }


def failure(status: int, code: str = "bad", headers: dict | None = None):
    """A reply with an error body that repeats what it must not: the key and the prompt."""
    body = {"error": {"message": f"{SECRET}\n{PROMPT}", "type": "invalid", "code": code}}
    return lambda request: (status, json.dumps(body), headers or {"retry-after-ms": "1"})


def ok(*contents, **message):
    return lambda request: (200, json.dumps(completion(*contents, **message)), {})


def raw(text: str, kind: str = "application/json"):
    return lambda request: (200, text, {"content-type": kind})


def hidden(code: object, **more):
    """A failure in a reply of status 200, as routers in front of many models send it."""
    body = {"error": {"message": f"{SECRET}\n{PROMPT}", "code": code}} | more
    return lambda request: (200, json.dumps(body), {"retry-after-ms": "1"})


def ended(reason: str | None, content: object, error: dict | None = None, **message):
    """An answer that ended for some other reason than that it was complete."""
    body = completion(content, **message)
    body["choices"][0] |= {"finish_reason": reason} | ({"error": error} if error else {})
    return lambda request: (200, json.dumps(body), {"retry-after-ms": "1"})


def text_part(text: str) -> dict:
    return {"type": "text", "text": text}


def numbered(request):
    """A server that respects n; its answers count on from request to request."""
    n = request["body"].get("n") or 1
    first = sum(r["body"].get("n") or 1 for r in request["before"])
    return 200, json.dumps(completion(*(f"answer {first + i}" for i in range(n)))), {}


def lazy(request):
    """A server that ignores n."""
    return 200, json.dumps(completion(f"answer {len(request['before'])}")), {}


def cut(request):
    return None


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests, self.script, self.reply = [], [], numbered
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, client_address):
        pass  # a client that went away


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        request = {"path": self.path, "headers": self.headers, "body": body}
        server = self.server
        request["before"] = list(server.requests)
        server.requests.append(request)
        reply = (server.script.pop(0) if server.script else server.reply)(request)
        if reply is None:
            self.close_connection = True
            self.connection.shutdown(2)
            return
        status, text, headers = reply
        self.send_response(status)
        for name, value in ({"content-type": "application/json"} | headers).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def endpoint(server):
    pytest.importorskip("openai")

    def make(**options) -> Endpoint:
        return Endpoint("small", **({"base_url": server.url, "retries": 0} | options))

    return make


# Proposing through a server


def test_answers_keep_their_order_and_one_request_asks_for_all(server, endpoint):
    model = endpoint(temperature=0.5, max_tokens=77)
    assert isinstance(model, LanguageModel)
    assert model.propose(PROMPT, 3) == ["answer 0", "answer 1", "answer 2"]
    (request,) = server.requests
    assert request["path"] == "/v1/chat/completions"
    assert request["headers"]["Authorization"] == f"Bearer {SECRET}"
    assert request["body"] == {
        "model": "small",
        "messages": [{"role": "user", "content": PROMPT}],
        "n": 3,
        "temperature": 0.5,
        "max_tokens": 77,
    }
    assert (model.usage.calls, model.usage.prompt_tokens) == (1, 7)
    assert model.usage.completion_tokens == 9
    assert model.usage.seconds > 0


def test_a_server_that_ignores_n_is_asked_again(server, endpoint):
    server.reply = lazy
    assert endpoint().propose(PROMPT, 3) == ["answer 0", "answer 1", "answer 2"]
    assert [request["body"]["n"] for request in server.requests] == [3, 2, 1]


def test_more_choices_than_asked_for_are_dropped(server, endpoint):
    server.reply = ok("a", "b", "c")
    assert endpoint().propose(PROMPT, 2) == ["a", "b"]


def test_a_server_that_refuses_n_is_asked_one_by_one(server, endpoint):
    server.reply = lambda request: (failure(400) if request["body"]["n"] > 1 else lazy)(request)
    model = endpoint()
    assert len(model.propose(PROMPT, 3)) == 3
    before = len(server.requests)
    model.propose(PROMPT + "!", 2)  # what works is remembered
    assert [request["body"]["n"] for request in server.requests[before:]] == [1, 1]


def test_a_server_that_wants_max_completion_tokens(server, endpoint):
    server.reply = lambda r: (failure(400) if "max_tokens" in r["body"] else numbered)(r)
    assert len(endpoint(max_tokens=9).propose(PROMPT, 2)) == 2
    assert server.requests[-1]["body"]["max_completion_tokens"] == 9
    assert server.requests[-1]["body"]["n"] == 2


def test_a_server_that_wants_max_completion_tokens_and_refuses_n(server, endpoint):
    def strict(request):
        body = request["body"]
        return (failure(400) if "max_tokens" in body or body["n"] > 1 else numbered)(request)

    server.reply = strict
    model = endpoint(max_tokens=9)
    assert len(model.propose(PROMPT, 3)) == 3
    assert server.requests[-1]["body"]["max_completion_tokens"] == 9
    before = len(server.requests)
    assert len(model.propose(PROMPT + "!", 2)) == 2  # what works is remembered
    assert len(server.requests) == before + 2


@pytest.mark.parametrize(("n", "forms"), [(1, 2), (3, 4)])
def test_a_server_that_refuses_every_form_is_asked_once_in_each(server, endpoint, n, forms):
    server.reply = failure(400)
    with pytest.raises(LanguageModelError, match="shorter prompt"):
        endpoint().propose(PROMPT, n)
    sent = [json.dumps(request["body"], sort_keys=True) for request in server.requests]
    assert len(sent) == len(set(sent)) == forms


def test_one_answer_alone_does_not_decide_how_many_are_asked_for(server, endpoint):
    model = endpoint()
    model.propose(PROMPT, 1)
    model.propose(PROMPT, 3)
    assert [request["body"]["n"] for request in server.requests] == [1, 3]


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (ok(""), ""),
        (ok(None), ""),
        (ok(None, refusal="I cannot help with that."), "I cannot help with that."),
        (ok(None, reasoning_content="let me think"), ""),
        (ok("code", reasoning_content="let me think"), "code"),
        (ok("I would rather talk about it."), "I would rather talk about it."),
        (ok([text_part("a = "), {"type": "thinking", "thinking": []}, text_part("1")]), "a = 1"),
        (ok([]), ""),
        (ended("length", "half an ans"), "half an ans"),
        (raw('{"choices": [{"message": {}}], "usage": null}'), ""),
        (raw(json.dumps(completion("é\u2028ü")), "text/plain"), "é\u2028ü"),
    ],
)
def test_answers_come_as_they_are_and_indices_stay_aligned(server, endpoint, reply, answer):
    server.script = [reply, ok("second")]
    assert endpoint().propose(PROMPT, 2) == [answer, "second"]


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (failure(401), "OPENAI_API_KEY"),
        (failure(402), "add credit"),
        (failure(403), "OPENAI_API_KEY"),
        (failure(404, "model_not_found"), "OPENAI_MODEL"),
        (failure(405), "check OPENAI_BASE_URL"),
        (failure(400), "shorter prompt"),
        (failure(422), "shorter prompt"),
        (failure(429), "quota"),
        (failure(500), "try again later"),
        (failure(503), "try again later"),
        (cut, "it is running"),
        (raw('{"choices": [{"mess'), "protocol"),
        (raw("<html>\n<body>Welcome</body></html>", "text/html"), "/v1"),
        (raw("<html>\n<body>Welcome</body></html>"), "/v1"),
        (raw(""), "protocol"),
        (raw("null"), "protocol"),
        (raw("[]"), "protocol"),
        (raw("{}"), "protocol"),
        (raw('{"error": {"message": "no"}}'), "protocol"),
        (raw('{"choices": []}'), "no choices"),
        (raw('{"choices": {"a": 1}}'), "no choices"),
        (raw('{"choices": null}'), "no choices"),
        (raw('{"choices": [1], "usage": 3}'), "protocol"),
        (raw('{"choices": [7], "usage": null}'), "protocol"),
        (raw('{"choices": [{"index": 0}]}'), "protocol"),
        (raw('{"choices": [{"message": null}]}'), "protocol"),
        (raw('{"choices": [{"message": {"content": [1]}}]}'), "protocol"),
        (raw('{"choices": [{"message": {"content": 7}}]}'), "protocol"),
        (raw('{"error": "Unexpected endpoint or method."}'), "/v1"),
        (hidden(429), "quota"),
        (hidden("402"), "add credit"),
        (hidden(400), "shorter prompt"),
        (hidden(502, choices=[]), "try again later"),
        (ended("error", "half an ans"), "try again later"),
        (ended("error", "", error={"code": 429}), "quota"),
        (ended(None, "", error={"code": "overloaded"}), "try again later"),
        (ended("length", None, reasoning_content="let me think"), "raise max_tokens"),
        (ended("length", "", reasoning="let me think"), "raise max_tokens"),
        (ended("length", [{"type": "thinking", "thinking": []}]), "raise max_tokens"),
        (ended("content_filter", None), "filter"),
    ],
)
def test_every_failure_is_one_line_that_says_what_to_do(server, endpoint, reply, says):
    server.reply = reply
    with pytest.raises(LanguageModelError) as error:
        endpoint().propose(PROMPT, 1)
    text = one_line(error)
    assert says in text
    assert "127.0.0.1" in text
    assert not list(AnswerCache().folder.glob("*"))


def test_one_retry_after_429_waits_as_the_server_says(server, endpoint, monkeypatch):
    waits = []
    monkeypatch.setattr("openai._base_client.time.sleep", waits.append)
    server.script = [failure(429, headers={"retry-after": "17"})]
    assert endpoint(retries=4).propose(PROMPT, 1) == ["answer 1"]
    assert len(server.requests) == 2
    assert waits == [17]


@pytest.mark.parametrize(
    "first",
    [
        failure(500),
        failure(429),
        cut,
        hidden(429),
        hidden("503"),
        ended("error", "half an ans"),
        ended("error", None, error={"code": 502}),
    ],
)
def test_a_passing_failure_is_tried_again(server, endpoint, first):
    server.script = [first]
    assert endpoint(retries=1).propose(PROMPT, 1) == ["answer 1"]
    assert len(server.requests) == 2


@pytest.mark.parametrize("reply", [hidden(402), ended("error", "half", error={"code": 401})])
def test_a_failure_that_will_not_pass_is_not_tried_again(server, endpoint, reply):
    server.reply = reply
    with pytest.raises(LanguageModelError):
        endpoint(retries=4).propose(PROMPT, 1)
    assert len(server.requests) == 1


def test_429_for_ever_ends(server, endpoint):
    server.reply = failure(429)
    with pytest.raises(LanguageModelError) as error:
        endpoint(retries=2).propose(PROMPT, 1)
    assert "429" in one_line(error)
    assert len(server.requests) == 3


def test_a_slow_server_is_given_up(server, endpoint):
    done = threading.Event()
    server.reply = lambda request: done.wait(30) and None
    try:
        with pytest.raises(LanguageModelError) as error:
            endpoint(timeout=0.2).propose(PROMPT, 1)
    finally:
        done.set()
    assert "in time" in one_line(error)


def test_a_base_url_without_v1_gets_a_hint(server, endpoint):
    server.reply = lambda r: (numbered if r["path"].startswith("/v1") else failure(404))(r)
    with pytest.raises(LanguageModelError) as error:
        endpoint(base_url=server.url.removesuffix("/v1")).propose(PROMPT, 1)
    assert "/v1" in one_line(error)
    assert endpoint(base_url=server.url + "/").propose(PROMPT, 1) == ["answer 1"]


def test_no_server_at_all():
    pytest.importorskip("openai")
    server = Server()
    server.server_close()  # the port is free again
    with pytest.raises(LanguageModelError) as error:
        Endpoint("small", base_url=server.url, retries=0).propose(PROMPT, 1)
    assert "it is running" in one_line(error)


def test_what_came_before_an_error_is_kept(server, endpoint):
    server.script = [lazy, lazy, failure(500)]
    server.reply = lazy
    model = endpoint()
    with pytest.raises(LanguageModelError):
        model.propose(PROMPT, 3)
    assert model.propose(PROMPT, 3) == ["answer 0", "answer 1", "answer 3"]
    assert model.usage.cached == 2


def choices(*replies):
    """One reply with the choices of several."""

    def reply(request):
        bodies = [json.loads(each(request)[1]) for each in replies]
        joined = [choice for body in bodies for choice in body["choices"]]
        return 200, json.dumps(bodies[0] | {"choices": joined}), {}

    return reply


def test_a_failed_choice_is_asked_for_again_and_the_others_are_kept(server, endpoint):
    server.script = [choices(ok("a"), ended("error", "half an ans"), ok("b"))]
    server.reply = lazy
    assert endpoint().propose(PROMPT, 3) == ["a", "b", "answer 1"]
    assert [request["body"]["n"] for request in server.requests] == [3, 1]


def test_what_came_with_a_cut_answer_is_kept(server, endpoint):
    server.script = [choices(ok("a"), ended("length", None, reasoning="let me think"), ok("b"))]
    server.reply = lazy
    with pytest.raises(LanguageModelError, match="raise max_tokens"):
        endpoint().propose(PROMPT, 3)
    assert endpoint().propose(PROMPT, 3) == ["a", "b", "answer 1"]


# Settings and the key


def test_the_environment_names_server_and_model(server, monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_MODEL", "other")
    monkeypatch.delenv("OPENAI_API_KEY")
    assert Endpoint().name == "other"
    assert Endpoint().propose(PROMPT, 1) == ["answer 0"]
    assert server.requests[0]["headers"]["authorization"] != f"Bearer {SECRET}"


@pytest.mark.parametrize("lacking", ["model", "server"])
def test_without_settings_one_line_says_what_to_set(monkeypatch, lacking):
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setenv(
        *{"model": ("OPENAI_BASE_URL", "http://x/v1"), "server": ("A", "b")}[lacking]
    )
    with pytest.raises(LanguageModelError) as error:
        Endpoint(None if lacking == "model" else "small")
    assert {"OPENAI_MODEL", "OPENAI_BASE_URL", "OPENAI_API_KEY"} <= set(
        one_line(error).replace(",", " ").replace(".", " ").split()
    )


@pytest.mark.parametrize(
    "url",
    [
        "localhost:11434",
        "/v1",
        "ftp://host/v1",
        "http://",
        f"http://user:{SECRET}@host/v1",
        f"http://host/v1?key={SECRET}",
        "http://host/\nv1",
    ],
)
def test_a_base_url_that_is_none(url):
    with pytest.raises(LanguageModelError, match="OPENAI_BASE_URL") as error:
        Endpoint("small", base_url=url)
    one_line(error)


@pytest.mark.parametrize("key", ["sk-é" + SECRET, f"{SECRET}\n{SECRET}"])
def test_a_key_that_no_header_can_carry(monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(LanguageModelError, match="OPENAI_API_KEY") as error:
        Endpoint("small", base_url="http://localhost/v1")
    one_line(error)


def test_a_key_with_a_newline_at_its_end_works(server, endpoint, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET + "\n")
    endpoint().propose(PROMPT, 1)
    assert server.requests[0]["headers"]["Authorization"] == f"Bearer {SECRET}"


def test_key_and_prompt_are_written_nowhere(server, endpoint, caplog, capsys):
    for name in (None, "openai"):
        caplog.set_level(logging.DEBUG, logger=name)
    model = endpoint()
    model.propose(PROMPT, 2)
    shown = [repr(model), str(model), str(vars(model)), str(model.usage), caplog.text]
    shown += capsys.readouterr()
    files = [path for path in AnswerCache().folder.rglob("*") if path.is_file()]
    assert len(files) == 2
    shown += [path.name + path.read_text() for path in files]
    for text in shown:
        assert SECRET not in text
        assert PROMPT not in text


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"max_tokens": 0},
        {"max_tokens": 1.5},
        {"retries": -1},
        {"timeout": 0},
    ],
)
def test_bad_settings(endpoint, options):
    with pytest.raises(ValueError, match=next(iter(options))) as error:
        endpoint(**options)
    one_line(error)


@pytest.mark.parametrize("arguments", [(PROMPT, 0), (PROMPT, True), (PROMPT, "3"), ("", 1), (7, 1)])
def test_bad_input(server, endpoint, arguments):
    with pytest.raises(ValueError, match=r"n must|a text") as error:
        endpoint().propose(*arguments)
    one_line(error)
    assert not server.requests


def test_usage_is_one_line_for_the_chapter():
    usage = Usage(12, 3401, 5120, 31.2, 3)
    assert str(usage) == "12 calls, 3,401 + 5,120 tokens, 31 s; 3 answers from the cache"
    assert str(Usage(1, cached=1)) == "1 call, 0 + 0 tokens, 0 s; 1 answer from the cache"


@pytest.mark.parametrize("package", ["openai", "transformers"])
def test_a_missing_extra_is_named(monkeypatch, package, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(LanguageModelError, match=r"pip install 'duality-book\[llm\]'") as error:
        Endpoint("m", base_url="http://x/v1") if package == "openai" else HuggingFace(tmp_path)
    assert package in one_line(error)


# The cache


def test_a_hit_makes_no_request_and_more_asks_for_the_rest(server, endpoint):
    first = endpoint().propose(PROMPT, 3)
    model = endpoint()
    assert model.propose(PROMPT, 5) == [*first, "answer 3", "answer 4"]
    assert server.requests[-1]["body"]["n"] == 2
    assert model.usage.cached == 3
    assert endpoint().propose(PROMPT, 2) == first[:2]
    assert len(server.requests) == 2


def test_asked_again_the_same_object_draws_new_answers(server, endpoint):
    model = endpoint()
    told = model.propose(PROMPT, 2) + model.propose(PROMPT, 3)
    assert told == [f"answer {i}" for i in range(5)]
    requests = len(server.requests)
    again = endpoint()
    assert again.propose(PROMPT, 1) + again.propose(PROMPT, 4) == told
    assert len(server.requests) == requests


def test_nothing_that_differs_shares_an_entry(server, endpoint):
    server.reply = lazy
    answers = {
        endpoint().propose(PROMPT, 1)[0],
        endpoint().propose(PROMPT + " ", 1)[0],
        endpoint(temperature=0.9).propose(PROMPT, 1)[0],
        endpoint(max_tokens=5).propose(PROMPT, 1)[0],
        endpoint(base_url=server.url + "/other").propose(PROMPT, 1)[0],
        Endpoint("large", base_url=server.url).propose(PROMPT, 1)[0],
    }
    assert len(answers) == 6
    assert endpoint(temperature=1).propose(PROMPT, 1) == ["answer 0"]
    assert len(server.requests) == 6


@pytest.mark.parametrize("how", ["argument", "environment", "both"])
def test_the_cache_can_be_off(server, endpoint, monkeypatch, tmp_path, how):
    if how != "argument":
        monkeypatch.setenv("DUALITY_CACHE", "off")
    cache = {"argument": False, "environment": True, "both": tmp_path / "kept"}[how]
    assert endpoint(cache=cache).propose(PROMPT, 1) == ["answer 0"]
    assert endpoint(cache=cache).propose(PROMPT, 1) == ["answer 1"]
    assert not list(tmp_path.iterdir())
    AnswerCache().clear()


@pytest.mark.parametrize("kind", [str, lambda folder: folder, AnswerCache])
def test_a_cache_may_have_a_folder_of_its_own(server, endpoint, tmp_path, kind):
    endpoint(cache=kind(tmp_path / "kept")).propose(PROMPT, 2)
    assert len(list((tmp_path / "kept").iterdir())) == 2
    assert not (tmp_path / "answers").exists()


def test_the_default_folder_is_in_the_home(monkeypatch, tmp_path):
    monkeypatch.delenv("DUALITY_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert AnswerCache().folder == tmp_path / ".cache" / "duality-book" / "answers"


def test_only_the_user_may_read(endpoint):
    endpoint().propose(PROMPT, 1)
    folder = AnswerCache().folder
    (path,) = folder.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_clear_removes_its_own_files_only(server, endpoint):
    endpoint().propose(PROMPT, 2)
    cache = AnswerCache()
    (cache.folder / f"{'a' * 64}.half_x.tmp").write_text("left by a run that died")
    others = [cache.folder / "notes.json", cache.folder / f"{'b' * 64}.txt"]
    for path in others:
        path.write_text("mine")
    cache.clear()
    assert sorted(cache.folder.iterdir()) == sorted(others)
    assert endpoint().propose(PROMPT, 1) == ["answer 2"]


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", "7", '{"answer": "x"}', '{"answer": 3}', "\udcff", "copied"]
)
def test_a_damaged_entry_is_asked_for_again_and_written_again(server, endpoint, damage):
    endpoint().propose(PROMPT, 2)
    paths = list(AnswerCache().folder.iterdir())
    good = paths[0].read_bytes()
    for path in paths:
        other = good if path != paths[0] else b""
        text = damage.encode("utf-8", "surrogateescape")
        path.write_bytes(other if damage == "copied" else text)
    assert endpoint().propose(PROMPT, 2) == ["answer 2", "answer 3"]
    assert endpoint().propose(PROMPT, 2) == ["answer 2", "answer 3"]
    assert len(server.requests) == 2


@pytest.mark.parametrize("below", ["", "sub/folder"])
def test_an_answer_survives_a_disk_that_refuses(server, endpoint, tmp_path, monkeypatch, below):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DUALITY_CACHE", str(tmp_path / "file" / below))
    with pytest.warns(UserWarning, match="cannot keep answers.*DUALITY_CACHE") as caught:
        answers = [endpoint().propose(PROMPT, n) for n in (2, 1)]
    assert answers == [["answer 0", "answer 1"], ["answer 2"]]
    (warning,) = caught
    assert "\n" not in str(warning.message)


@pytest.mark.parametrize("broken", ["tempfile.mkstemp", "os.replace"])
def test_a_full_disk_ends_no_run_and_holds_no_draft(server, endpoint, monkeypatch, broken):
    endpoint().propose(PROMPT, 1)
    whole = sorted(AnswerCache().folder.iterdir())

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(broken, full)
    with pytest.warns(UserWarning, match="No space left") as caught:
        assert endpoint().propose(PROMPT, 3) == ["answer 0", "answer 1", "answer 2"]
    assert len(caught) == 1
    assert sorted(AnswerCache().folder.iterdir()) == whole


def test_a_user_without_a_home_keeps_nothing_and_is_told(server, endpoint, monkeypatch):
    def homeless(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("DUALITY_CACHE")
    monkeypatch.setattr("pathlib.Path.expanduser", homeless)
    monkeypatch.setattr(_disk, "_warn", _disk._warn.__wrapped__)  # whatever ran before
    with pytest.warns(UserWarning, match="home folder.*DUALITY_CACHE"):
        assert endpoint().propose(PROMPT, 1) == ["answer 0"]


def test_many_writers_and_readers_at_once(tmp_path):
    key = {"prompt": "p", "sample": 0}
    answers = {letter: letter * 50_000 for letter in "abcd"}
    seen, failed = set(), []

    def work(answer: str) -> None:
        cache = AnswerCache(tmp_path / "shared")
        for _ in range(25):
            cache.put(key, answer)
            seen.add(cache.get(key))

    def guarded(answer: str) -> None:
        try:
            work(answer)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(a,)) for a in answers.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert seen <= set(answers.values())
    assert len(list((tmp_path / "shared").iterdir())) == 1


# Scores from a server


def echo(logs: dict[str, float], extra: int = 1):
    """A completions server with one token per character and the given scores, as vLLM has it."""

    def reply(request):
        body = request["body"]
        assert request["path"] == "/v1/completions"
        assert body["echo"]
        text = body["prompt"]
        tokens = [*text, *(["</s>"] * extra)]
        scores = [None, *(logs.get(token, -9.0) for token in tokens[1:])]
        choice = {
            "index": 0,
            "text": text,
            "logprobs": {"tokens": tokens, "token_logprobs": scores, "top_logprobs": None},
            "finish_reason": "length",
        }
        body = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "small"}
        usage = {"prompt_tokens": len(text), "completion_tokens": extra}
        return 200, json.dumps(body | {"choices": [choice], "usage": usage}), {}

    return reply


@pytest.mark.parametrize("extra", [0, 1])
def test_scores_are_means_over_the_tokens_of_the_option(server, endpoint, extra):
    server.reply = echo({"x": -1.0, "y": -4.0}, extra)
    model = endpoint()
    scores = model.logprob("ab", ["x", "xy", "yyy"])
    torch.testing.assert_close(scores, torch.tensor([-1.0, -2.5, -4.0]))
    assert model.usage.calls == 4


@pytest.mark.parametrize(
    "reply",
    [
        failure(400),
        failure(404),
        failure(501),
        lambda request: (200, json.dumps({"choices": [{"index": 0, "text": "hello"}]}), {}),
        lambda request: (200, json.dumps({"choices": [{"text": "x", "logprobs": None}]}), {}),
        lambda request: (200, json.dumps({"choices": [7]}), {}),
        raw('{"choices":[{"text":"b","logprobs":{"tokens":["b"],"token_logprobs":[-1]}}]}'),
    ],
)
def test_a_server_without_scores_says_so(server, endpoint, reply):
    server.reply = reply
    with pytest.raises(LanguageModelError, match=r"does not score options.*HuggingFace") as error:
        endpoint().logprob(PROMPT, ["a"])
    one_line(error)


def test_a_refused_key_is_not_taken_for_a_server_without_scores(server, endpoint):
    server.reply = failure(401)
    with pytest.raises(LanguageModelError, match="OPENAI_API_KEY") as error:
        endpoint().logprob(PROMPT, ["a"])
    one_line(error)


@pytest.mark.parametrize("options", [[], "text", [""], ["a", 3]])
def test_bad_options(endpoint, options):
    with pytest.raises(ValueError, match=r"option") as error:
        endpoint().logprob(PROMPT, options)
    one_line(error)


@pytest.mark.parametrize("reply", [hidden(404), hidden("501")])
def test_a_hidden_refusal_of_scores_says_so(server, endpoint, reply):
    server.reply = reply
    with pytest.raises(LanguageModelError, match="does not score options"):
        endpoint().logprob(PROMPT, ["a"])


# A real model on disk

TEMPLATE = "{% for m in messages %}[user] {{ m['content'] }} {% endfor %}[assistant]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([PROMPT, "open the drawer", "reach the green cube"], trainer)
    folder = tmp_path_factory.mktemp("model")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    fast.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=len(fast),
            n_positions=64,
            n_embd=16,
            n_layer=2,
            n_head=2,
            bos_token_id=0,
            eos_token_id=0,
            initializer_range=0.5,  # far from uniform, so that scores differ
        )
        GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def local(folder):
    return lambda **options: HuggingFace(folder, **({"max_tokens": 8, "cache": False} | options))


def test_a_local_model_proposes(local):
    model = local()
    assert isinstance(model, LanguageModel)
    before = torch.random.get_rng_state()
    answers = model.propose(PROMPT, 4)
    assert torch.equal(before, torch.random.get_rng_state())
    assert len(answers) == 4
    assert all(isinstance(answer, str) for answer in answers)
    assert len(set(answers)) > 1
    assert "<end>" not in "".join(answers)
    assert model.usage.calls == 1
    assert 4 <= model.usage.completion_tokens <= 32


def test_the_real_model_is_the_one_that_is_named_or_cached(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DUALITY_CACHE", str(tmp_path))
    monkeypatch.delenv("DUALITY_SMOLLM", raising=False)
    assert smollm() is None
    assert "make smollm" in capsys.readouterr().out
    monkeypatch.setenv("DUALITY_SMOLLM", str(folder))
    assert smollm(max_tokens=3).name == folder.name
    monkeypatch.delenv("DUALITY_SMOLLM")
    shutil.copytree(folder, tmp_path / "smollm2")
    assert smollm().name == "smollm2"
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("DUALITY_CACHE", "off")
    assert smollm() is None


def test_a_seed_gives_the_same_answers_however_many(local):
    answers = local(seed=3).propose(PROMPT, 4)
    torch.rand(3)
    assert local(seed=3).propose(PROMPT, 4) == answers
    assert local(seed=3).propose(PROMPT, 2) == answers[:2]
    assert local(seed=4).propose(PROMPT, 4) != answers


def test_loading_is_silent_and_leaves_the_global_random_numbers_alone(local, folder, capfd):
    before = torch.random.get_rng_state()
    model = local()
    assert torch.equal(before, torch.random.get_rng_state())
    assert "".join(capfd.readouterr()) == ""
    assert repr(model) == f"HuggingFace({folder.name!r})"  # and no folder of this machine


def test_temperature_zero_is_greedy(local):
    model = local(temperature=0)
    answers = model.propose(PROMPT, 2)
    ids = model._ids(PROMPT)
    start = len(ids)
    with torch.no_grad():
        for _ in range(8):
            ids.append(int(model._model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert answers[0] == answers[1]
    assert answers[0] == model._tokenizer.decode(ids[start:]).split("<end>")[0]


def test_samples_follow_the_model(local):
    model = local(max_tokens=1, temperature=0.7)
    ids = torch.tensor([model._ids(PROMPT)])
    with torch.no_grad():
        chances = (model._model(ids).logits[0, -1] / 0.7).softmax(0)
    best = int(chances.argmax())
    answers = model.propose(PROMPT, 400)
    expected, found = float(chances[best]), answers.count(model._tokenizer.decode([best])) / 400
    assert 0.02 < expected < 0.98
    assert abs(found - expected) < 4 * (expected * (1 - expected) / 400) ** 0.5


def test_the_chat_template_is_used_for_proposals_only(folder, tmp_path):
    import shutil

    chat = shutil.copytree(folder, tmp_path / "chat")
    plain = HuggingFace(chat, cache=False, max_tokens=4)
    plain._tokenizer.chat_template = TEMPLATE
    plain._tokenizer.save_pretrained(chat)
    model, bare = (HuggingFace(f, cache=False, max_tokens=4, temperature=0) for f in (chat, folder))
    assert model.propose("open", 1) == bare.propose("[user] open [assistant]", 1)
    assert torch.equal(model.logprob("open", [" the"]), bare.logprob("open", [" the"]))


def brute_force(model: HuggingFace, prompt: str, option: str) -> float:
    head, ids = model._ids(prompt), model._ids(prompt + option)
    assert ids[: len(head)] == head  # true for the prompts below
    with torch.no_grad():
        logs = model._model(torch.tensor([ids])).logits[0].log_softmax(1)
    picked = [float(logs[i - 1, ids[i]]) for i in range(len(head), len(ids))]
    return sum(picked) / len(picked)


OPTIONS = [" the drawer", " reach", " the green cube and the drawer", " zq", " the"]


def test_scores_equal_teacher_forcing_one_by_one(local, monkeypatch):
    model = local()
    expected = torch.tensor([brute_force(model, "open", option) for option in OPTIONS])
    assert expected.std() > 0.1
    torch.testing.assert_close(model.logprob("open", OPTIONS), expected, atol=1e-5, rtol=0)
    alone = torch.cat([model.logprob("open", [option]) for option in OPTIONS])
    torch.testing.assert_close(alone, expected, atol=1e-5, rtol=0)
    monkeypatch.setattr(language, "_LOGITS", 1)  # batches of one
    torch.testing.assert_close(model.logprob("open", OPTIONS), expected, atol=1e-5, rtol=0)


def test_a_prompt_is_read_once_whatever_was_asked_before(local):
    model = local()
    prompts = [
        "open the drawer and",
        "open the drawer",
        "open the drawer and reach",
        "reach",
        "open",
    ]
    for prompt in [*prompts, *prompts[::-1]]:
        expected = torch.tensor([brute_force(model, prompt, x) for x in OPTIONS])
        torch.testing.assert_close(model.logprob(prompt, OPTIONS), expected, atol=1e-4, rtol=0)
    model.logprob(prompts[0], OPTIONS)
    before = model.usage.prompt_tokens
    model.logprob(prompts[0], OPTIONS)
    tails = [len(model._ids(prompts[0] + x)) - len(model._ids(prompts[0])) + 1 for x in OPTIONS]
    assert model.usage.prompt_tokens - before == sum(tails)  # none of the shared beginning


def test_a_token_that_straddles_the_boundary_counts_whole(local):
    model = local()
    head, ids = model._ids("open t"), model._ids("open the")
    shared = sum(a == b for a, b in zip(head, ids, strict=False))
    assert shared < len(head)
    with torch.no_grad():
        logs = model._model(torch.tensor([ids])).logits[0].log_softmax(1)
    expected = [float(logs[i - 1, ids[i]]) for i in range(shared, len(ids))]
    score = model.logprob("open t", ["he"])
    torch.testing.assert_close(score, torch.tensor([sum(expected) / len(expected)]))


def test_a_text_that_is_too_long_is_one_line(local):
    for ask in (lambda m: m.propose("q" * 70, 1), lambda m: m.logprob("q" * 70, ["a"])):
        with pytest.raises(LanguageModelError, match="tokens") as error:
            ask(local())
        one_line(error)
    assert len(local(max_tokens=500).propose("q" * 60, 1)) == 1  # what room there is


@pytest.mark.parametrize("kind", ["path", "text", "hub", "empty", "damaged"])
def test_a_model_that_is_not_there_is_one_line(tmp_path, kind):
    pytest.importorskip("transformers")
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text("{")
    model = {
        "path": tmp_path / "none",
        "text": str(tmp_path / "none"),
        "hub": "duality/none",
        "empty": tmp_path / "empty",
        "damaged": tmp_path / "damaged",
    }[kind]
    with pytest.raises(LanguageModelError, match="give a folder made by save_pretrained") as error:
        HuggingFace(model)
    one_line(error)


def test_answers_of_a_local_model_are_cached_until_its_files_change(folder, tmp_path):
    import shutil

    copy = shutil.copytree(folder, tmp_path / "copy")
    model = HuggingFace(copy, max_tokens=4)
    answers = model.propose(PROMPT, 3)
    again = HuggingFace(copy, max_tokens=4)
    assert again.propose(PROMPT, 3) == answers
    assert again.usage.calls == 0
    assert HuggingFace(copy, max_tokens=4, seed=1).propose(PROMPT, 3) != answers
    weights = copy / "model.safetensors"
    os.utime(weights, ns=(1, 1))
    changed = HuggingFace(copy, max_tokens=4)
    changed.propose(PROMPT, 3)
    assert changed.usage.calls == 1


@pytest.fixture(scope="module")
def seeing(folder, tmp_path_factory):
    """A model that also takes pictures: the sizes of its text stand one level down."""
    import shutil

    pytest.importorskip("transformers.models.gemma3")
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    size = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    words = {"vocab_size": 300, "max_position_embeddings": 64, "head_dim": 8, **ends}
    text = {**size, **words, "num_hidden_layers": 2, "num_key_value_heads": 1}
    sight = {**size, "num_hidden_layers": 1, "image_size": 28, "patch_size": 14}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = Gemma3Config(text_config=text, vision_config=sight, initializer_range=0.5, **ends)
        model = Gemma3ForConditionalGeneration(config)
    copy = shutil.copytree(folder, tmp_path_factory.mktemp("seeing") / "model")
    model.save_pretrained(copy)
    return copy


def test_a_model_that_also_sees_proposes_and_scores(seeing):
    model = HuggingFace(seeing, max_tokens=8, cache=False)
    assert not hasattr(model._model.config, "vocab_size")  # else this tests nothing
    expected = torch.tensor([brute_force(model, "open", option) for option in OPTIONS])
    assert expected.std() > 1e-3
    torch.testing.assert_close(model.logprob("open", OPTIONS), expected, atol=1e-5, rtol=0)
    assert len(model.propose(PROMPT, 2)) == 2
    with pytest.raises(LanguageModelError, match="1 to 63 tokens") as error:
        model.propose("q" * 70, 1)
    one_line(error)
