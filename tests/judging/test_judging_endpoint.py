"""Endpoints as judges: a scripted server for what goes wrong, and a real one."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from neft_zoo import NoiseError
from neft_zoo.cli.main import main
from neft_zoo.config import recipe
from neft_zoo.judging.cache import Cache
from neft_zoo.judging.endpoint import SYSTEM, USER, Endpoint
from neft_zoo.judging.judges import judge_pairs
from neft_zoo.judging.pairs import Pair

pytest.importorskip("openai", reason="openai is not installed (neft-zoo[judge])")
SECRET = "sk-very-secret-0123"
PAIRS = [Pair(f"Question {i}?", f"ours {i}", f"theirs {i}") for i in range(3)]


def reply(text, finish_reason="stop"):
    message = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": text}}
    return json.dumps({"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [message]})


class Server(ThreadingHTTPServer):
    """Answers as `answer(prompt, attempt)` says: a text for a reply, or a status and a body, or seconds to wait."""

    daemon_threads = True

    def __init__(self, answer):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.seen, self.keys, self.lock = answer, [], [], threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()  # polls for its end

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][-1]["content"]
        with self.server.lock:
            attempt = sum(seen["messages"][-1]["content"] == prompt for seen in self.server.seen)
            self.server.seen.append(body)
            self.server.keys.append(self.headers["Authorization"])
        found = self.server.answer(prompt, attempt)
        if isinstance(found, float):
            time.sleep(found)
            found = "A"
        status, text = (200, reply(found)) if isinstance(found, str) else found
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text.encode())))
            self.send_header("retry-after-ms", "10")
            self.end_headers()
            self.wfile.write(text.encode())
        except OSError:
            pass  # the client has hung up

    def log_message(self, *args):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(answer):
        servers.append(Server(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def prefers_ours(prompt):
    return "A" if prompt.index("ours") < prompt.index("theirs") else "B"


def judged(server, cache=None, **settings):
    endpoint = Endpoint("m", server.url, **{"retries": 2, "timeout": 5.0, **settings})
    return judge_pairs(endpoint, PAIRS, cache or Cache(None), progress=False)


def test_asks_in_both_orders_at_temperature_0_and_sends_the_key_only_there(serve, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    server = serve(lambda prompt, attempt: prefers_ours(prompt))
    judgements, reasons = judged(server, Cache(tmp_path / "c.jsonl"))
    assert [each.preference for each in judgements] == [1, 1, 1] and reasons == {}
    assert [each.orders for each in judgements] == [(1, 1)] * 3 and len(server.seen) == 6
    assert all(body["temperature"] == 0 and body["max_tokens"] == 16 and body["model"] == "m" for body in server.seen)
    assert set(server.keys) == {f"Bearer {SECRET}"}
    assert SECRET not in (tmp_path / "c.jsonl").read_text()
    assert SECRET not in Endpoint("m", f"http://user:{SECRET}@host/v1").name
    judged(server, Cache(tmp_path / "c.jsonl"))
    assert len(server.seen) == 6, "all verdicts were on disk"


@pytest.mark.parametrize(
    "trouble",
    [
        (429, '{"error": "slow down"}'),
        (500, "oops"),
        (503, ""),
        "perhaps",
        "",
        (200, '{"id": "1", "cho'),
        (200, "{}"),
        3.0,
    ],
    ids=["429", "500", "503", "nonsense", "empty", "truncated", "no choices", "timeout"],
)
def test_what_goes_wrong_once_is_asked_again(serve, trouble):
    server = serve(lambda prompt, attempt: prefers_ours(prompt) if attempt else trouble)
    judgements, reasons = judged(server, timeout=1.0 if trouble == 3.0 else 5.0)
    assert [each.preference for each in judgements] == [1, 1, 1] and reasons == {} and len(server.seen) == 12


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ((429, "{}"), "status 429"),
        ((500, "{}"), "status 500"),
        ((400, '{"error": {"message": "context too long"}}'), "status 400: context too long"),
        ("perhaps", "a reply other than A, B or T, such as 'perhaps'"),
        ((200, '{"id": "1", "cho'), "a reply that is damaged or cut off"),
    ],
)
def test_what_stays_wrong_is_counted_as_missing(serve, trouble, reason, tmp_path):
    server = serve(lambda prompt, attempt: trouble if "Question 1" in prompt else prefers_ours(prompt))
    cache = Cache(tmp_path / "c.jsonl")
    judgements, reasons = judged(server, cache, retries=1)
    assert [each.preference for each in judgements] == [1, None, 1] and reasons == {reason: 2}
    assert len(cache.verdicts) == 4, "a failure is not kept, so that the next run asks again"
    server.answer = lambda prompt, attempt: prefers_ours(prompt)
    assert [each.preference for each in judged(server, Cache(tmp_path / "c.jsonl"))[0]] == [1, 1, 1]


def test_a_judge_that_only_fails_is_an_error(serve):
    with pytest.raises(NoiseError, match="all failed, mostly: status 500"):
        judged(serve(lambda *_: (500, "{}")), retries=0)
    with pytest.raises(NoiseError, match="all failed, mostly: a reply other than A, B or T, such as 'hm'"):
        judged(serve(lambda *_: "hm"), retries=1)
    with pytest.raises(NoiseError, match="must be reachable, got no reply in time at http://127.0.0.1"):
        judged(serve(lambda *_: 2.0), retries=0, timeout=0.3)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_ends_at_once_and_does_not_show_the_key(serve, monkeypatch, status):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    server = serve(lambda *_: (status, json.dumps({"error": {"message": f"no use for {SECRET}"}})))
    with pytest.raises(NoiseError, match="the endpoint refused") as caught:
        judged(server)
    assert SECRET not in str(caught.value) and len(server.seen) == 1


@pytest.mark.parametrize("status", [400, 422])
def test_settings_that_are_not_accepted_end_at_the_first_question_with_the_endpoints_words(serve, monkeypatch, status):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    message = f"'max_tokens' is not supported with this model, {SECRET}, hunter2: use\n'max_completion_tokens'."
    server = serve(lambda *_: (status, json.dumps({"error": {"message": message}})))
    endpoint = Endpoint("m", server.url.replace("http://", "http://user:hunter2@"), retries=2)
    with pytest.raises(NoiseError) as caught:
        judge_pairs(endpoint, PAIRS, Cache(None), progress=False)
    said = str(caught.value)
    assert f"status {status}: 'max_tokens' is not supported with this model, ***, ***: use 'max_completion" in said
    assert len(server.seen) == 1


def test_a_reply_that_is_cut_names_the_option(serve):
    server = serve(lambda *_: (200, reply("Let me think about both answers", "length")))
    with pytest.raises(NoiseError, match="a reply without a verdict, cut at max_tokens 16: raise --max_tokens"):
        judged(server, retries=0)
    server = serve(lambda prompt, attempt: (200, reply(prefers_ours(prompt), "length")))
    assert [each.preference for each in judged(server)[0]] == [1, 1, 1], "a verdict counts, cut or not"


def files_of(tmp_path):
    for name in ("ours", "theirs"):
        records = [{"instruction": p.instruction, "output": getattr(p, name), "generator": name} for p in PAIRS]
        (tmp_path / f"{name}.json").write_text(json.dumps(records))
    return [str(tmp_path / "ours.json"), str(tmp_path / "theirs.json")]


def test_the_command_counts_what_is_missing_and_leaves_no_key(serve, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    server = serve(lambda prompt, attempt: "?" if "Question 0" in prompt else prefers_ours(prompt))
    argv = ["judge", *files_of(tmp_path), "--model", "m", "--base_url", server.url, "--retries", "0"]
    assert main(argv) == 0
    out, error = capsys.readouterr()
    assert "2 of 3" in out and "missing: a reply other than A, B or T, such as '?'  2" in out and "100.00 (" in out
    written = [path.read_text() for path in (tmp_path / "judged").iterdir()]
    assert len(written) == 3 and not any(SECRET in text for text in [*written, out, error])
    closed = server.url
    server.shutdown()
    server.server_close()
    assert main([*argv, "--output", str(tmp_path / "other")]) == 2
    assert f"the endpoint must be reachable, got no connection at {closed[:-3]}" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


@pytest.fixture(scope="module")
def always_a(tmp_path_factory):
    """Return the folder of the quickstart model, taught to answer every question of a judge's with A."""
    folder = tmp_path_factory.mktemp("judge")
    source = recipe.folder() / "quickstart" / "model"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(source), AutoTokenizer.from_pretrained(source)
    torch.manual_seed(0)
    optimizer, loss = torch.optim.AdamW(model.parameters(), lr=2e-3), None
    for step in range(40):
        pair = Pair(f"Question {step}?", f"ours {step}", f"theirs {step}").questions()[step % 2]
        user = USER.format(instruction=pair.instruction, first=pair.first, second=pair.second)
        turns = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]
        whole = tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": "A"}], return_dict=True)
        asked = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)
        ids, start = torch.tensor([whole["input_ids"]]), len(asked["input_ids"])
        labels = torch.where(torch.arange(ids.shape[1]) < start, -100, ids)
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss is not None and loss < 0.1
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def transformers_serve(tmp_path):
    """Return a starter of `transformers serve` on loopback."""
    started = []

    def start(model):
        with socket.socket() as place:
            place.bind(("127.0.0.1", 0))
            port = place.getsockname()[1]
        command = [Path(sys.executable).parent / "transformers", "serve", model, "--host", "127.0.0.1"]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        command += ["--port", str(port), "--device", "cpu"]
        with (tmp_path / "serve.log").open("w") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        started.append(server)
        for _ in range(240):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                return f"http://127.0.0.1:{port}/v1"
            except OSError:
                assert server.poll() is None, (tmp_path / "serve.log").read_text()[-2000:]
                time.sleep(0.5)
        raise AssertionError((tmp_path / "serve.log").read_text()[-2000:])

    yield start
    for server in started:
        server.terminate()
        server.wait(30)


@pytest.mark.slow
def test_a_real_endpoint_judges(transformers_serve, always_a, tmp_path, capsys, monkeypatch):
    pytest.importorskip("fastapi", reason="transformers[serving] is not installed")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    url = transformers_serve(always_a)
    argv = ["judge", *files_of(tmp_path), "--model", str(always_a), "--base_url", url, "--workers", "2"]
    assert main(argv) == 0, capsys.readouterr().err
    report = json.loads((tmp_path / "judged" / "judged.json").read_text())
    assert report["judged"] == 3 and report["missing"] == 0
    assert report["win_rate"] == 50 and report["first_preferred"] == 100 and report["consistent"] == 0


@pytest.mark.slow
def test_a_real_endpoint_that_talks_nonsense_is_an_error(transformers_serve, tmp_path, capsys, monkeypatch):
    pytest.importorskip("fastapi", reason="transformers[serving] is not installed")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    model = str(recipe.folder() / "quickstart" / "model")
    url = transformers_serve(model)
    argv = ["judge", *files_of(tmp_path), "--model", model, "--base_url", url, "--retries", "1", "--max_tokens", "5"]
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert "all failed, mostly: a reply without a verdict, cut at max_tokens 5: raise --max_tokens." in error
    assert "Traceback" not in error
