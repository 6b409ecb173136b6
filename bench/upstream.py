"""Fake OpenAI upstreams that are far cheaper than any gateway under test.

  python upstream.py json  --port P   fixed non-stream JSON (and a fixed SSE body on /sse/v1/...), served by nginx
  python upstream.py paced --port P   uvloop server: SSE with a set time to first token, gap and token count;
                                      a body without "stream": true gets the same fixed JSON
The paced server's defaults (--ttft-ms, --gap-ms, --tokens) can be overridden per request by a mark in
the prompt:  [[ttft=20 gap=5 n=64]].
"""

import argparse
import asyncio
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

CONTENT = ("The gateway received the request, picked a provider, and relayed this fixed answer. " * 5)[:400]
JSON_BODY = json.dumps(
    {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1760000000,
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": CONTENT}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 24, "completion_tokens": 80, "total_tokens": 104},
    },
    separators=(",", ":"),
)


def chunk(delta, finish=None, usage=None):
    d = {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1760000000,
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}] if usage is None else [],
    }
    if usage is not None:
        d["usage"] = usage
    return b"data: " + json.dumps(d, separators=(",", ":")).encode() + b"\n\n"


FIRST = chunk({"role": "assistant", "content": ""})
WORD = chunk({"content": " token"})
LAST = chunk({}, "stop")
DONE = b"data: [DONE]\n\n"


def usage(n):
    return chunk({}, usage={"prompt_tokens": 24, "completion_tokens": n, "total_tokens": 24 + n})


def sse_body(n):
    return FIRST + WORD * n + LAST + DONE


def hexed(b):
    return b"%x\r\n%s\r\n" % (len(b), b)


NGINX = """
worker_processes 1; daemon off; pid {d}/pid; error_log {d}/err.log error;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s; client_max_body_size 8m;
  client_body_temp_path {d}/b; proxy_temp_path {d}/p; fastcgi_temp_path {d}/f; uwsgi_temp_path {d}/u; scgi_temp_path {d}/s;
  default_type application/json; root {d}/www;
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location = /v1/chat/completions {{ default_type application/json; return 200 '{body}'; }}
    location = /sse/v1/chat/completions {{ default_type text/event-stream; error_page 405 =200 $uri; }}
    location / {{ return 200 'ok'; }}
  }}
}}
"""


def run_nginx(port, tokens):
    d = tempfile.mkdtemp(prefix="bench-up-")
    conf = os.path.join(d, "nginx.conf")
    with open(conf, "w") as f:
        f.write(NGINX.format(d=d, port=port, body=JSON_BODY))
    os.chmod(d, 0o755)
    os.makedirs(os.path.join(d, "www/sse/v1/chat"))
    with open(os.path.join(d, "www/sse/v1/chat/completions"), "wb") as f:  # a POST to a static file is 405: mapped back to 200
        f.write(sse_body(tokens))
    p = subprocess.Popen([shutil.which("nginx") or "/usr/sbin/nginx", "-p", d, "-c", conf])

    def stop(*_):
        p.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    p.wait()
    shutil.rmtree(d, ignore_errors=True)


MARK = re.compile(rb"\[\[ttft=([\d.]+) gap=([\d.]+) n=(\d+)\]\]")
J = JSON_BODY.encode()
RESP_JSON = (b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(J)) + J
RESP_SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
H_FIRST, H_WORD = hexed(FIRST), hexed(WORD)


class Paced(asyncio.Protocol):
    """One connection of the paced server."""

    __slots__ = ("buf", "cfg", "gap", "left", "loop", "n", "t", "timer", "want_usage")

    def __init__(self, cfg, loop):
        self.cfg, self.loop = cfg, loop

    def connection_made(self, t):
        self.t, self.buf, self.timer = t, b"", None
        s = t.get_extra_info("socket")
        if s is not None:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, exc):
        if self.timer:
            self.timer.cancel()

    def data_received(self, data):
        self.buf = self.buf + data if self.buf else data
        while self.buf:
            i = self.buf.find(b"\r\n\r\n")
            if i < 0:
                return
            head = self.buf[:i].lower()
            j = head.find(b"content-length:")
            if j >= 0:
                k = head.find(b"\r\n", j)
                n = int(head[j + 15 : k if k > 0 else None])
                if len(self.buf) < i + 4 + n:
                    return
                body, self.buf = self.buf[i + 4 : i + 4 + n], self.buf[i + 4 + n :]
            elif b"transfer-encoding: chunked" in head:
                e = self.buf.find(b"0\r\n\r\n", i + 4)
                if e < 0:
                    return
                body, self.buf = self.buf[i + 4 : e], self.buf[e + 5 :]
            else:
                body, self.buf = b"", self.buf[i + 4 :]
            self.request(head, body)

    def request(self, head, body):
        if b'"stream":true' not in body and b'"stream": true' not in body:
            self.t.write(RESP_JSON)
            return
        ttft, self.gap, self.n = self.cfg.ttft_ms, self.cfg.gap_ms, self.cfg.tokens
        m = MARK.search(body)
        if m:
            ttft, self.gap, self.n = float(m[1]), float(m[2]), int(m[3])
        self.want_usage = b'"include_usage":true' in body or b'"include_usage": true' in body
        self.left = self.n
        if self.gap <= 0 and ttft <= 0:
            self.t.write(RESP_SSE + H_FIRST + H_WORD * self.n)
            self.end()
            return
        self.gap /= 1000
        self.timer = self.loop.call_later((ttft + random.random() * self.gap * 1000) / 1000, self.start)

    def start(self):
        self.t.write(RESP_SSE + H_FIRST)
        self.tick()

    def tick(self):
        if self.t.is_closing():
            return
        if self.left:
            self.left -= 1
            self.t.write(H_WORD)
            self.timer = self.loop.call_later(self.gap, self.tick)
        else:
            self.end()

    def end(self):
        tail = LAST + (usage(self.n) if self.want_usage else b"") + DONE
        self.t.write(hexed(tail) + b"0\r\n\r\n")


async def run_paced(cfg):
    loop = asyncio.get_running_loop()
    srv = await loop.create_server(lambda: Paced(cfg, loop), "127.0.0.1", cfg.port, backlog=2048)
    stop = asyncio.Event()
    for s in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(s, stop.set)
    await stop.wait()
    srv.close()


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("kind", choices=["json", "paced"])
    a.add_argument("--port", type=int, required=True)
    a.add_argument("--ttft-ms", type=float, default=20)
    a.add_argument("--gap-ms", type=float, default=20)
    a.add_argument("--tokens", type=int, default=64)
    cfg = a.parse_args()
    if cfg.kind == "json":
        run_nginx(cfg.port, cfg.tokens)
        return
    import uvloop

    uvloop.run(run_paced(cfg))


if __name__ == "__main__":
    sys.exit(main())
