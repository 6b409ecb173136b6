"""Raw-protocol SSE load client on uvloop: N streams at concurrency C over keep-alive connections.

Prints one JSON line: time to first token, inter-token gaps, streams/s, tokens/s, errors.
Each request carries a unique prompt, or one of --prompts K (to hit a cache).
"""

import argparse
import asyncio
import json
import os
import socket
import sys
import time


def pct(v, p):
    if not v:
        return None
    v = sorted(v)
    return v[min(len(v) - 1, int(len(v) * p / 100))]


class Client(asyncio.Protocol):
    __slots__ = ("chunked", "close", "done", "first", "fut", "head", "last", "left", "run", "state", "t", "t0", "t_head", "tail", "tokens")

    def __init__(self, run):
        self.run, self.t, self.fut = run, None, None

    def connection_made(self, t):
        self.t = t
        s = t.get_extra_info("socket")
        if s is not None:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, exc):
        self.t = None
        if self.fut and not self.fut.done():
            self.finish(ok=self.done)

    def send(self, fut):
        self.fut, self.state, self.head, self.tail = fut, 0, b"", b""
        self.first = self.last = None
        self.tokens, self.done, self.left, self.chunked, self.close = 0, False, None, False, False
        self.t0 = time.perf_counter()
        self.t.write(self.run.request())

    def data_received(self, data):
        if self.fut is None or self.fut.done():
            return
        now = time.perf_counter()
        if self.state == 0:
            self.head += data
            i = self.head.find(b"\r\n\r\n")
            if i < 0:
                return
            h = self.head[:i].lower()
            if not h.startswith(b"http/1.1 200"):
                self.run.bad.append(self.head[:300].decode("latin1"))
                self.finish(False)
                self.t and self.t.close()
                return
            self.chunked = b"transfer-encoding: chunked" in h
            self.close = b"connection: close" in h
            j = h.find(b"content-length:")
            if j >= 0:
                self.left = int(h[j + 15 :].split(b"\r\n", 1)[0])
            data, self.state = self.head[i + 4 :], 1
            if not data:
                return
        n = data.count(b'"content":" token"') or data.count(b'"content": " token"')
        if n:
            if self.first is None:
                self.first = now
                self.run.ttft.append(now - self.t0)
            else:
                self.run.gaps.append(now - self.last)
            self.last = now
            self.tokens += n
        t = self.tail + data
        self.tail = t[-32:]
        if not self.done and b"[DONE]" in t:
            self.done = True
        if self.left is not None:
            self.left -= len(data)
            if self.left <= 0:
                self.finish(self.done)
        elif self.chunked and self.tail.endswith(b"0\r\n\r\n"):
            self.finish(self.done)

    def finish(self, ok):
        r = self.run
        r.tokens += self.tokens
        r.totals.append(time.perf_counter() - self.t0)
        if ok and self.tokens:
            r.ok += 1
        else:
            r.failed += 1
        self.fut.set_result(None)


class Run:
    def __init__(self, a):
        self.a, self.i = a, 0
        self.ttft, self.gaps, self.totals, self.bad = [], [], [], []
        self.tokens = self.ok = self.failed = 0
        self.extra = "".join(f"{k}: {v}\r\n" for k, v in (h.split(":", 1) for h in a.header)).encode()
        self.seed = f"{os.getpid()}-{time.time_ns()}"

    def request(self):
        a = self.a
        self.i += 1
        tag = f"s-{self.i % a.prompts}" if a.prompts else f"{self.seed}-{self.i}"
        mark = f" [[ttft={a.ttft_ms:g} gap={a.gap_ms:g} n={a.tokens}]]"
        body = json.dumps(
            {
                "model": a.model,
                "stream": True,
                "messages": [
                    {"role": "system", "content": "You are a terse assistant."},
                    {"role": "user", "content": f"Question {tag}: explain how a cache saves energy.{mark}"},
                ],
            },
            separators=(",", ":"),
        ).encode()
        return (
            (
                f"POST {a.path} HTTP/1.1\r\nhost: {a.host}:{a.port}\r\ncontent-type: application/json\r\n"
                f"accept: text/event-stream\r\ncontent-length: {len(body)}\r\n"
            ).encode()
            + self.extra
            + b"\r\n"
            + body
        )

    async def worker(self):
        loop = asyncio.get_running_loop()
        c = None
        while self.started < self.a.streams:
            self.started += 1
            try:
                if c is None or c.t is None or c.t.is_closing():
                    _, c = await asyncio.wait_for(loop.create_connection(lambda: Client(self), self.a.host, self.a.port), 10)
                f = loop.create_future()
                c.send(f)
                await asyncio.wait_for(f, self.a.timeout)
                if c.close and c.t:
                    c.t.close()
            except Exception as e:
                self.failed += 1
                self.bad.append(repr(e)[:200])
                if c and c.t:
                    c.t.abort()
                c = None

    async def main(self):
        self.started = 0
        t = time.perf_counter()
        await asyncio.gather(*[self.worker() for _ in range(self.a.concurrency)])
        w = time.perf_counter() - t
        ms = lambda x: None if x is None else round(x * 1000, 3)
        ideal = self.a.ttft_ms + self.a.gap_ms * (self.a.tokens + 0.5)
        out = {
            "streams": self.ok,
            "failed": self.failed,
            "seconds": round(w, 3),
            "tokens": self.tokens,
            "tokens_per_s": round(self.tokens / w, 1),
            "streams_per_s": round(self.ok / w, 2),
            "ttft_p50_ms": ms(pct(self.ttft, 50)),
            "ttft_p95_ms": ms(pct(self.ttft, 95)),
            "ttft_p99_ms": ms(pct(self.ttft, 99)),
            "gap_p50_ms": ms(pct(self.gaps, 50)),
            "gap_p95_ms": ms(pct(self.gaps, 95)),
            "gap_p99_ms": ms(pct(self.gaps, 99)),
            "reads": len(self.gaps) + len(self.ttft),
            "total_p50_ms": ms(pct(self.totals, 50)),
            "ideal_total_ms": ideal,
            "bad": self.bad[:3],
        }
        print(json.dumps(out))


def main():
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("--host", default="127.0.0.1")
    a.add_argument("--port", type=int, required=True)
    a.add_argument("--path", default="/v1/chat/completions")
    a.add_argument("--model", default="bench-stream")
    a.add_argument("--header", action="append", default=[])
    a.add_argument("-c", "--concurrency", type=int, default=64)
    a.add_argument("-n", "--streams", type=int, default=256)
    a.add_argument("--prompts", type=int, default=0, help="size of the prompt set; 0: every prompt unique")
    a.add_argument("--ttft-ms", type=float, default=20)
    a.add_argument("--gap-ms", type=float, default=20)
    a.add_argument("--tokens", type=int, default=64)
    a.add_argument("--timeout", type=float, default=60)
    import uvloop

    uvloop.run(Run(a.parse_args()).main())


if __name__ == "__main__":
    sys.exit(main())
