"""A server that answers as OpenAI's do, or as servers do that are not well."""

import json
import threading
import time
from collections import Counter
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeTeacher:
    """Answers each message by its text: a word of it says how.

    Attributes:
      url: of the API.
      requests: bodies, in the order in which they came.
      asked: how often each text came.
      most: requests at once, at most.
      paths, keys: that came.
    """

    def __init__(self):
        self.requests, self.asked = [], Counter()
        self.paths, self.keys = set(), set()
        self.most = self._now = 0
        self.times: dict[str, list[float]] = {}
        self._lock = threading.Lock()
        teacher = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                teacher.paths.add(self.path)
                teacher.keys.add(self.headers.get("Authorization"))
                with teacher._lock:
                    teacher._now += 1
                    teacher.most = max(teacher.most, teacher._now)
                try:
                    status, headers, fields = teacher.answer(body)
                finally:
                    with teacher._lock:
                        teacher._now -= 1
                text = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
                if status is None:
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *arguments):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, body):
        """Status (None cuts the connection), headers and body."""
        text = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
        with self._lock:
            self.requests.append(body)
            self.asked[text] += 1
            times = self.asked[text]
            self.times.setdefault(text, []).append(time.monotonic())
        word = text.split()[0]
        if word == "slow":
            time.sleep(0.05)
        if word == "busy" and times < 6:
            return 429, {"Retry-After": "0.1"}, error("too many requests")
        if word == "dated" and times < 2:
            return 503, {"Retry-After": formatdate(time.time() + 0.5, usegmt=True)}, error("later")
        if word == "cut" and times < 2:
            return None, {}, b""
        if word == "garbled" and times < 2:
            return 200, {}, b"<html>"
        if word == "down":
            return 500, {}, error("out of\nmemory")
        if word == "bad":
            return 400, {}, error("messages: too long")
        if word == "locked":
            return 401, {}, error("no key")
        samples = 1 if word == "few" else body.get("n", 1)
        return 200, {}, response(text, samples, is_chat="messages" in body)


def error(message):
    return {"error": {"message": message, "type": "x", "param": None, "code": None}}


def response(text, samples, *, is_chat):
    """With what providers add, and nothing of usage."""
    texts = [f"{text}! {index}" for index in range(samples)]
    choices = [
        {"index": index, "finish_reason": "stop", "logprobs": None, "matched_stop": 7, **(
            {"message": {"role": "assistant", "content": one, "reasoning_content": "hm"}}
            if is_chat else {"text": one}
        )}
        for index, one in enumerate(texts)
    ]  # fmt: skip
    return {"id": "x", "object": "o", "created": 5, "model": "teacher-v2", "choices": choices}
