"""A streaming completions server on the standard library: `python fake_server.py PORT`.

The prompt says what happens: `fail` is refused, `break` fails in the stream, `silent` has no text;
anything else is answered with one piece of two tokens for every two tokens asked for.
"""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self._send(json.dumps({"data": [{"id": "fake"}]}).encode())

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body["prompt"] == "fail" or body["model"] != "fake":
            self._send(b'{"error": "refused"}', status=400)
            return
        lines = []
        if body["prompt"] != "silent":
            lines += [{"choices": [{"text": "ab"}]}] * (body["max_tokens"] // 2)
        if body["prompt"] == "break":
            lines.append({"error": {"message": "broken"}})
        if body.get("stream_options"):
            lines.append({"choices": [], "usage": {"completion_tokens": body["max_tokens"]}})
        self.send_response(200)
        self.end_headers()
        for line in lines:
            time.sleep(0.01)
            self.wfile.write(f"data: {json.dumps(line)}\n\n".encode())
            self.wfile.flush()
        self.wfile.write(b"data: [DONE]\n\n")

    def _send(self, data, status=200):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
