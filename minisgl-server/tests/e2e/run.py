"""Asks the real binary, with the demo model, what users ask it: through the official OpenAI client.

    python run.py path/to/minisgl

Ends with code 0 if everything is right, else with the first thing that is not.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import deploy
import openai

BINARY = sys.argv[1]
READY = re.compile(r"API server is ready to serve on 127\.0\.0\.1:(\d+)")
TIMEOUT = 60  # seconds, for anything at all
QUESTION = [{"role": "user", "content": "What is a prefix cache?"}]


class Server:
    """The binary on a free port."""

    def __init__(self, *flags, env=None):
        command = [BINARY, "--port", "0", *flags]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
        self.log = []
        self.port = None
        self.ready = threading.Event()
        threading.Thread(target=self.read_log, daemon=True).start()
        if not self.ready.wait(TIMEOUT) or self.port is None:
            self.process.kill()
            raise AssertionError("the server did not start:\n" + "".join(self.log))
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=TIMEOUT)

    def read_log(self):
        for line in self.process.stderr:
            self.log.append(line)
            if match := READY.search(line):
                self.port = int(match[1])
                self.ready.set()
        self.ready.set()

    def chat(self, **parameters):
        parameters = {"model": "demo", "messages": QUESTION, "temperature": 0, **parameters}
        return self.client.chat.completions.create(**parameters)

    def complete(self, prompt, **parameters):
        parameters = {"model": "demo", "temperature": 0, "max_tokens": 12, **parameters}
        return self.client.completions.create(prompt=prompt, **parameters)

    def get(self, path):
        return fetch("GET", self.url + path)

    def metric(self, name):
        page = self.get("/metrics")[2]
        return int(re.search(rf"^{re.escape(name)} (\d+)$", page, re.MULTILINE)[1])

    def wait_until_quiet(self):
        names = ["minisgl_num_running_reqs", "minisgl_num_queue_reqs", "minisgl_num_open_reqs", 'minisgl_kv_pages{state="held"}']
        wait_for("all requests to end", lambda: all(self.metric(name) == 0 for name in names))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(TIMEOUT)


@contextlib.contextmanager
def serving(*flags, env=None):
    server = Server(*flags, env=env)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()


def fetch(method, url, body=None, headers=None):
    """Status, headers and text of an answer, errors included."""
    headers = {"Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(url, data=body, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return response.status, response.headers, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def wait_for(what, is_so):
    deadline = time.monotonic() + TIMEOUT
    while not is_so():
        check(time.monotonic() < deadline, f"waited in vain for {what}")
        time.sleep(0.02)


def check(is_so, message):
    if not is_so:
        raise AssertionError(message)


def equal(got, expected, what):
    check(got == expected, f"{what}: got {got!r}, expected {expected!r}")


def raises(kind, call, param=None, code=None):
    try:
        call()
    except kind as error:
        body = error.body
        check(set(body) == {"message", "type", "param", "code"}, f"the keys of {body}")
        equal((body["param"], body["code"]), (param, code), f"param and code of {body}")
        return body["message"]
    raise AssertionError(f"{kind.__name__} did not come for {param} {code}")


def test_start_up(server, tp):
    log = "".join(server.log)
    for line in [f"Initializing tensor parallelism with {tp} (CPU ranks|GPUs)", *(f"Rank {rank}/{tp} ready" for rank in range(tp))]:
        check(re.search(rf"^\[\d{{4}}-\d\d-\d\d\|\d\d:\d\d:\d\d\] INFO {line}$", log, re.MULTILINE), f"no line {line!r} in\n{log}")


def test_models(server, tp):
    models = server.client.models.list().data
    equal([model.id for model in models], ["demo"], "models")
    equal(server.client.models.retrieve("demo").id, "demo", "model")
    raises(openai.NotFoundError, lambda: server.client.models.retrieve("gpt-5"), "model", "model_not_found")


def test_chat(server, tp):
    answer = server.chat()
    choice = answer.choices[0]
    check(len(choice.message.content) > 20, f"a short answer: {choice.message.content!r}")
    equal((choice.finish_reason, choice.message.role), ("stop", "assistant"), "the end")
    check(answer.id.startswith("chatcmpl-") and answer.object == "chat.completion", "the form")
    usage = answer.usage
    equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens, "usage")
    # The same question again: from the prefix cache, with the same answer.
    again = server.chat()
    equal(again.choices[0].message.content, choice.message.content, "the same question")
    check(again.usage.prompt_tokens_details.cached_tokens > 0, "nothing was cached")
    # And as a stream.
    chunks = list(server.chat(stream=True, stream_options={"include_usage": True}))
    equal(chunks[-1].choices, [], "the last chunk")
    equal(chunks[-1].usage.completion_tokens, usage.completion_tokens, "usage of a stream")
    check(len({(chunk.id, chunk.created) for chunk in chunks}) == 1, "ids of chunks differ")
    deltas = [chunk.choices[0] for chunk in chunks[:-1]]
    equal((deltas[0].delta.role, deltas[0].delta.content), ("assistant", ""), "the first chunk")
    equal("".join(delta.delta.content or "" for delta in deltas), choice.message.content, "stream")
    equal([delta.finish_reason for delta in deltas if delta.finish_reason], ["stop"], "the end")


def test_completions(server, tp):
    prompt = "Once upon a time"
    single = server.complete(prompt)
    equal((single.object, len(single.choices)), ("text_completion", 1), "the form")
    tokens = json.loads(fetch("POST", server.url + "/tokenize", json.dumps({"prompt": prompt}).encode())[2])["tokens"]
    equal(single.usage.prompt_tokens, len(tokens), "tokens in the prompt")
    equal(server.complete(tokens).choices[0].text, single.choices[0].text, "a prompt of ids")
    for prompts in [[prompt, "The fox"], [tokens, tokens]]:
        outputs = server.complete(prompts)
        equal([choice.index for choice in outputs.choices], [0, 1], "indices")
        equal(outputs.choices[0].text, single.choices[0].text, "the first of two prompts")
    streamed = "".join(chunk.choices[0].text for chunk in server.complete(prompt, stream=True))
    equal(streamed, single.choices[0].text, "stream")
    echoed = server.complete(prompt, echo=True).choices[0].text
    equal(echoed, prompt + single.choices[0].text, "echo")
    equal(single.choices[0].finish_reason, "length", "the end")
    equal(single.usage.completion_tokens, 12, "max_tokens")


def test_logprobs(server, tp):
    content = server.chat(logprobs=True, top_logprobs=3, max_tokens=8).choices[0].logprobs.content
    equal(len(content), 8, "tokens")
    for entry in content:
        best = entry.top_logprobs[0]
        # The most likely token each time, since the temperature is 0.
        equal((entry.token, entry.logprob), (best.token, best.logprob), "the chosen token")
        check(len(entry.top_logprobs) == 3 and -50 < entry.logprob <= 0, f"{entry}")
        equal(bytes(entry.bytes).decode(errors="replace"), entry.token, "bytes")
    logprobs = server.complete("Once upon a time", logprobs=2).choices[0].logprobs
    for token, chosen, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs):
        equal(max(top.values()), chosen, f"logprob of {token!r}, to the bit")
    equal(len(logprobs.text_offset), 12, "offsets")


def test_n_and_seeds(server, tp):
    story = [{"role": "user", "content": "Tell me a story."}]
    parameters = {"messages": story, "temperature": 1, "n": 3, "seed": 5, "max_tokens": 40}
    texts = [choice.message.content for choice in server.chat(**parameters).choices]
    check(len(set(texts)) > 1, f"three times the same: {texts}")
    again = [choice.message.content for choice in server.chat(**parameters).choices]
    equal(again, texts, "the same seed")
    with ThreadPoolExecutor(8) as pool:
        crowd = list(pool.map(lambda seed: server.chat(**{**parameters, "seed": seed}), range(8)))
    equal([choice.message.content for choice in crowd[5].choices], texts, "the same seed in a crowd")
    free = {server.chat(messages=story, temperature=1, max_tokens=40).choices[0].message.content for _ in range(4)}
    check(len(free) > 1, "without a seed all are the same")


def test_stop(server, tp):
    whole = server.chat().choices[0].message.content
    stop = whole[len(whole) // 2 :][:4]
    choice = server.chat(stop=[stop, "never said"]).choices[0]
    equal(choice.message.content, whole[: whole.index(stop)], f"up to {stop!r}")
    equal(choice.finish_reason, "stop", "the end")
    streamed = server.chat(stop=stop, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed)
    equal(text, choice.message.content, "stream")


def test_adjusted_logits(server, tp):
    story = "Once upon a time"
    long = {"max_tokens": 200, "extra_body": {"ignore_eos": True}}
    first = server.complete(story, max_tokens=1).choices[0].text
    body = json.dumps({"prompt": first, "add_special_tokens": False})
    (token,) = json.loads(fetch("POST", server.url + "/tokenize", body.encode())[2])["tokens"]
    forced = server.complete(story, logit_bias={str(token): 100}).choices[0]
    equal((forced.text, forced.finish_reason), (first * 12, "length"), "a forced token")
    banned = server.complete(story, **long, logprobs=0, logit_bias={str(token): -100}).choices[0]
    check(first not in banned.logprobs.tokens, f"{first!r} is banned: {banned.text}")
    words = lambda **parameters: server.complete(story, **{**long, **parameters}).choices[0].text.split()
    plain = len(set(words()))
    for parameters in [
        {"presence_penalty": 2},
        {"frequency_penalty": 2},
        {"extra_body": {"ignore_eos": True, "repetition_penalty": 1.5}},
    ]:
        check(len(set(words(**parameters))) > plain, f"{parameters}: no more words than {plain}")
    ended = server.complete(story, logit_bias={"2": 100}, extra_body={"min_tokens": 5})
    equal((ended.usage.completion_tokens, ended.choices[0].finish_reason), (6, "stop"), "min_tokens")
    for name, value in [("presence_penalty", 3), ("frequency_penalty", -3), ("logit_bias", {"5": 101})]:
        message = raises(openai.BadRequestError, lambda: server.complete(story, **{name: value}), name)
        check("from -" in message, message)


def test_abort(server, tp):
    for _ in range(3):
        stream = server.chat(stream=True, max_tokens=1500, extra_body={"ignore_eos": True})
        next(stream)
        stream.close()
    server.wait_until_quiet()


def test_crowd(server, tp):
    """64 at a time, some of them streams: each gets what it gets alone."""
    prompts = [f"Tell me about {thing}." for thing in ["a fox", "the sea", "pages", "bread", "tokens", "rain", "ranks", "you"]]
    alone = {prompt: ask(server, prompt, False) for prompt in prompts}
    with ThreadPoolExecutor(64) as pool:
        asked = [(prompt, pool.submit(ask, server, prompt, stream)) for prompt in prompts for stream in [True, False] * 4]
        for prompt, answer in asked:
            equal(answer.result(), alone[prompt], f"{prompt} in a crowd")
    server.wait_until_quiet()


def ask(server, prompt, stream):
    answer = server.chat(messages=[{"role": "user", "content": prompt}], max_tokens=24, stream=stream)
    if stream:
        return "".join(chunk.choices[0].delta.content or "" for chunk in answer)
    return answer.choices[0].message.content


def test_errors(server, tp):
    bad = openai.BadRequestError
    raises(bad, lambda: server.chat(temperature=3), "temperature")
    raises(bad, lambda: server.chat(messages=[]), "messages")
    raises(bad, lambda: server.chat(max_tokens=0), "max_tokens")
    raises(bad, lambda: server.chat(tools=[{"type": "function", "function": {"name": "f"}}]), "tools")
    raises(bad, lambda: server.chat(response_format={"type": "json_object"}), "response_format")
    raises(bad, lambda: server.complete(""), "prompt")
    raises(bad, lambda: server.complete([1 << 20]), "prompt")
    message = raises(bad, lambda: server.complete("word " * 5000), "prompt", "context_length_exceeded")
    check("maximum context length is 2048 tokens" in message, message)
    raises(openai.NotFoundError, lambda: server.chat(model="gpt-5"), "model", "model_not_found")
    for method, path, body, expected in [
        ("GET", "/nowhere", None, 404),
        ("GET", "/v1/chat/completions", None, 405),
        ("POST", "/v1/completions", b"{", 400),
        ("POST", "/v1/completions", b" " * (17 << 20), 413),
    ]:
        status, headers, text = fetch(method, server.url + path, body)
        equal(status, expected, f"{method} {path}")
        check(set(json.loads(text)["error"]) == {"message", "type", "param", "code"}, text)
    equal(fetch("GET", server.url + "/v1/completions")[1]["Allow"], "POST, OPTIONS", "Allow")


def test_other_endpoints(server, tp):
    equal(server.get("/health")[::2], (200, '{"status":"ok"}'), "health")
    equal(server.get("/v1")[::2], (200, '{"status":"ok"}'), "/v1")
    body = json.dumps({"prompt": "Once upon a time", "max_tokens": 12, "ignore_eos": True})
    status, headers, text = fetch("POST", server.url + "/generate", body.encode())
    equal((status, headers["Content-Type"]), (200, "text/event-stream; charset=utf-8"), "/generate")
    check(text.startswith("data: ") and text.endswith("data: [DONE]\n\n"), text)


def test_port_in_use(server, tp):
    second = subprocess.run([BINARY, "--port", str(server.port)], capture_output=True, text=True, timeout=TIMEOUT)
    check(second.returncode != 0, "a second server on the same port")
    equal(len(second.stderr.splitlines()), 1, f"lines about the port: {second.stderr}")
    check(f"cannot listen on 127.0.0.1:{server.port}" in second.stderr, second.stderr)


def test_drain(server, tp):
    """SIGTERM: what runs is finished, what comes is refused, and the exit code is 0."""
    stream = server.chat(stream=True, max_tokens=300, extra_body={"ignore_eos": True})
    next(stream)
    server.process.send_signal(signal.SIGTERM)
    wait_for("health to tell", lambda: server.get("/health")[0] == 503)
    status, headers, _ = fetch("POST", server.url + "/v1/completions", b'{"prompt": "a"}')
    equal((status, headers["Retry-After"]), (503, "1"), "a request while draining")
    reasons = [chunk.choices[0].finish_reason for chunk in stream]
    equal(reasons[-1], "length", "a stream while draining")
    equal(server.process.wait(TIMEOUT), 0, "exit code")


SUITE = [
    test_start_up, test_models, test_chat, test_completions, test_logprobs, test_n_and_seeds,
    test_stop, test_adjusted_logits, test_abort, test_crowd, test_errors, test_other_endpoints, test_port_in_use,
    test_drain,
]  # fmt: skip


def test_stop_at_once():
    """A second SIGTERM does not wait for what runs, which is told."""
    with serving() as server:
        stream = server.chat(stream=True, max_tokens=2000, extra_body={"ignore_eos": True})
        next(stream)
        server.process.send_signal(signal.SIGTERM)
        wait_for("health to tell", lambda: server.get("/health")[0] == 503)
        server.process.send_signal(signal.SIGTERM)
        try:
            list(stream)
            raise AssertionError("the stream ended as if all were well")
        except openai.APIError as error:
            check("shutting down" in str(error), str(error))
        equal(server.process.wait(TIMEOUT), 0, "exit code")


def test_api_key():
    with serving("--api-key", "s3cret") as server:
        equal(server.get("/health")[0], 200, "health")
        raises(openai.AuthenticationError, server.client.models.list, None, "invalid_api_key")
        server.client = server.client.with_options(api_key="s3cret")
        equal(len(server.client.models.list().data), 1, "models")
        equal(server.stop(), 0, "exit code")
        check("s3cret" not in "".join(server.log), "the key is in the log")


def test_flags():
    """Flags that must not change the output, and flags that make no sense."""
    texts = set()
    for flags in [[], ["--page-size", "16"], ["--cache", "naive"], ["--max-prefill-length", "5"], ["--disable-overlap-scheduling"]]:
        with serving(*flags) as server:
            texts.add(server.chat().choices[0].message.content)
            equal(server.stop(), 0, f"exit code with {flags}")
    equal(len(texts), 1, f"outputs with other flags: {texts}")
    for flags, reason in [
        (["--model", "Qwen/Qwen3-0.6B"], "HF_HUB_OFFLINE is set"),
        (["--model", "/no/such/folder"], "not a model folder"),
        (["--moe-backend", "fused"], "--moe-backend"),
        (["--tp", "3", "--device", "cpu"], "--tp 3"),
        (["--max-seq-len-override", "100000"], "--max-seq-len-override"),
    ]:
        # No test goes to the network.
        offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": "/nowhere"}
        command = [BINARY, "--port", "0", *flags]
        refused = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, env=offline)
        check(refused.returncode != 0 and reason in refused.stderr, f"{flags}: {refused.stderr}")


def test_shell():
    command = [BINARY, "--shell", "--shell-temperature", "0"]
    said = subprocess.run(command, input="What is a prefix cache?\n/exit\n", capture_output=True, text=True, timeout=TIMEOUT)
    check(said.returncode == 0 and len(said.stdout) > 20, f"{said}")


def test_help_and_doctor():
    shown = subprocess.run([BINARY, "--help"], capture_output=True, text=True, timeout=TIMEOUT)
    check(shown.returncode == 0 and "--tensor-parallel-size" in shown.stdout, f"{shown}")
    found = subprocess.run([BINARY, "doctor"], capture_output=True, text=True, timeout=TIMEOUT)
    check(found.returncode == 0 and found.stdout, f"{found}")


def test_bench_comm():
    """A line for every number of ranks and size, and sentences about what makes no sense."""
    def bench(*flags):
        command = [BINARY, "bench", "comm", "--device", "cpu", *flags]
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)

    shown = bench("--ranks", "2,3", "--sizes", "4096,65536")
    lines = re.findall(r"^ *(\d+) +(\d+) +(\w+) +([\d.]+) us +[\d.]+$", shown.stdout, re.MULTILINE)
    got = [(int(size), int(ranks), way) for size, ranks, way, _ in lines]
    expected = [(size, ranks, way) for ranks, way in [(1, "memcpy"), (2, "threads"), (3, "threads")] for size in [4096, 65536]]
    equal((shown.returncode, got), (0, expected), f"the table {shown}")
    check(all(float(time) > 0 for *_, time in lines), shown.stdout)
    for flags in [["--ranks", "1"], ["--sizes", "3"], ["--all-reduce", "nccl"]]:
        refused = bench(*flags)
        check(refused.returncode != 0 and flags[0] in refused.stderr, f"{flags}: {refused}")


def test_deploy():
    """The manifests for Kubernetes: valid, true of this program, and their commands serve."""
    shown = subprocess.run([BINARY, "--help"], capture_output=True, text=True, timeout=TIMEOUT).stdout
    default = re.search(r"--shutdown-timeout <SECONDS>.*?\[default: (\d+)\]", shown, re.DOTALL)
    deploy.check_pods(shown, {"--shutdown-timeout": default[1]})
    deploy.check_selectors()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dist_port = free.getsockname()[1]
    (replica,) = deploy.commands("Deployment", dist_port)
    with serving(*replica) as server:
        deploy.check_metrics(server.get("/metrics")[2])
        answer = server.chat().choices[0].message.content
        equal(server.stop(), 0, "exit code")
    # Four GPUs are more than most machines have.
    nodes = deploy.commands("LeaderWorkerSet", dist_port)
    leader, worker = [["--device=cpu" if arg == "--device=cuda" else arg for arg in node] for node in nodes]
    env = os.environ | {"MINISGL_DIST_SECRET": "of the end-to-end test"}
    following = subprocess.Popen([BINARY, *worker], stderr=subprocess.PIPE, text=True, env=env)
    try:
        with serving(*leader, env=env) as server:
            check("with 4 CPU ranks" in "".join(server.log), "".join(server.log))
            equal(server.chat().choices[0].message.content, answer, "the answer of two nodes")
            equal(server.stop(), 0, "exit code of node 0")
        said = following.communicate(timeout=TIMEOUT)[1]
        equal(following.returncode, 0, f"exit code of node 1, which said {said}")
    finally:
        following.kill()


def main():
    start = time.monotonic()
    # A machine with GPUs has as many ranks as GPUs.
    for tp in map(int, os.environ.get("MINISGL_E2E_TP", "1 4").split()):
        with serving("--tp", str(tp)) as server:
            for test in SUITE:
                run(f"--tp {tp} {test.__name__}", lambda: test(server, tp))
    for test in [test_stop_at_once, test_api_key, test_flags, test_shell, test_help_and_doctor, test_bench_comm, test_deploy]:
        run(test.__name__, test)
    print(f"all good, {time.monotonic() - start:.1f} s")


def run(name, test):
    start = time.monotonic()
    try:
        test()
    except AssertionError as error:
        sys.exit(f"{name}: FAILED: {error}")
    print(f"{name}: ok, {time.monotonic() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
