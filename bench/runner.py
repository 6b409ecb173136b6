"""Run load scenarios against one or more systems under test (SUT), interleaved, and print a table + JSON.

  python runner.py sut/direct.json sut/envoy.json sut/litellm.json --rounds 2 --seconds 4
SUT files are JSON; see README.md. CPU is user+sys of the SUT's whole process tree, read from /proc.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import statistics
import string
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
TICK = os.sysconf("SC_CLK_TCK")


def free_ports(n):
    out, held = [], []
    while len(out) < n:
        p = random.randint(21000, 29000)
        s = socket.socket()
        try:
            s.bind(("127.0.0.1", p))
            out.append(p)
            held.append(s)
        except OSError:
            s.close()
    for s in held:
        s.close()
    return out


def tree(roots):
    kids, seen, todo = {}, set(), list(roots)
    for d in os.listdir("/proc"):
        if d.isdigit():
            try:
                with open(f"/proc/{d}/stat") as f:
                    kids.setdefault(int(f.read().rsplit(")", 1)[1].split()[1]), []).append(int(d))
            except OSError:
                pass
    while todo:
        p = todo.pop()
        if p not in seen and os.path.exists(f"/proc/{p}"):
            seen.add(p)
            todo += kids.get(p, [])
    return seen


def cpu_of(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            v = f.read().rsplit(")", 1)[1].split()
        return sum(int(x) for x in v[11:15]) / TICK  # own + reaped children, user + sys
    except OSError:
        return 0.0


def cpu_tree(roots):
    return {p: cpu_of(p) for p in tree(roots)}


def mem_tree(roots):
    rss = pss = 0
    for p in tree(roots):
        try:
            with open(f"/proc/{p}/smaps_rollup") as f:
                for line in f:
                    if line.startswith("Rss:"):
                        rss += int(line.split()[1])
                    elif line.startswith("Pss:"):
                        pss += int(line.split()[1])
        except OSError:
            pass
    return round(rss / 1024, 1), round(pss / 1024, 1)


class Env(dict):
    def __missing__(self, k):
        if k.startswith("env_"):
            v = os.environ.get(k[4:])
            if v is None:
                raise SystemExit(f"set {k[4:]} (see README.md)")
            return v
        raise KeyError(k)


class T(string.Template):
    idpattern = r"[A-Za-z_][A-Za-z0-9_]*"


def fill(v, env):
    if isinstance(v, str):
        return T(v).substitute(env)
    if isinstance(v, list):
        return [fill(x, env) for x in v]
    if isinstance(v, dict):
        return {k: fill(x, env) for k, x in v.items()}
    return v


class Sut:
    def __init__(self, path, base):
        self.spec = json.load(open(path))
        self.name = self.spec["name"]
        self.dir = tempfile.mkdtemp(prefix=f"bench-{self.name}-")
        env = Env(base)
        env.update({"work": self.dir, "here": HERE, "python": sys.executable})
        for i, p in enumerate(free_ports(12)):
            env["port" if i == 0 else f"port{i}"] = str(p)
        self.env, self.procs = env, []
        s = self.spec
        for name, text in s.get("files", {}).items():
            if isinstance(text, (list, dict)) and not name.endswith((".yaml", ".json")):
                text = "\n".join(text)
            with open(os.path.join(self.dir, name), "w") as f:
                t = fill(text, env)
                f.write(t if isinstance(t, str) else json.dumps(t, indent=1))
        self.port = int(fill(s.get("listen", "${port}"), env))
        self.sport = int(fill(s.get("listen_stream", s.get("listen", "${port}")), env))
        self.path = s.get("path", "/v1/chat/completions")
        self.headers = fill(s.get("headers", {}), env)
        self.sheaders = {**self.headers, **fill(s.get("headers_stream", {}), env)}
        self.models = s.get("models", {"chat": "bench-chat", "stream": "bench-stream"})

    def start(self):
        t = time.time()
        for i, c in enumerate(fill(self.spec.get("processes", []), self.env)):
            e = {**os.environ, **c.get("env", {})}
            log = open(os.path.join(self.dir, f"p{i}.log"), "wb")
            self.procs.append(subprocess.Popen(c["cmd"], env=e, stdout=log, stderr=subprocess.STDOUT, cwd=self.dir, start_new_session=True))
        url = fill(self.spec.get("health", ""), self.env)
        while url:
            try:
                urllib.request.urlopen(url, timeout=2).read()
                break
            except Exception:
                dead = [p for p in self.procs if p.poll() is not None]
                if dead or time.time() - t > 90:
                    print(open(os.path.join(self.dir, "p0.log"), errors="replace").read()[-3000:], file=sys.stderr)
                    raise SystemExit(f"{self.name} did not become healthy; logs in its work folder") from None
            time.sleep(0.05)
        self.boot = round(time.time() - t, 2)

    @property
    def pids(self):
        return [p.pid for p in self.procs]

    def stop(self):
        for p in self.procs:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(p.pid, signal.SIGTERM)
        for p in self.procs:
            try:
                p.wait(8)
            except subprocess.TimeoutExpired:
                os.killpg(p.pid, signal.SIGKILL)
                p.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


def wrk(s, conc, seconds, prompts):
    env = {
        **os.environ,
        "BENCH_PATH": s.path,
        "BENCH_MODEL": s.models["chat"],
        "BENCH_SEED": str(time.time_ns()),
        "BENCH_HEADERS": "\n".join(f"{k}: {v}" for k, v in s.headers.items()),
    }
    env.pop("BENCH_PROMPTS", None)
    if prompts:
        env["BENCH_PROMPTS"] = str(prompts)
    out = subprocess.run(
        [
            "wrk",
            "-t1",
            f"-c{conc}",
            f"-d{seconds}s",
            "--timeout",
            "20s",
            "--latency",
            "-s",
            os.path.join(HERE, "chat.lua"),
            f"http://127.0.0.1:{s.port}",
        ],
        env=env,
        capture_output=True,
        text=True,
    ).stdout
    r = json.loads(next(line for line in out.splitlines() if line.startswith("JSON"))[4:])
    r["rps"] = round(r["requests"] / r["seconds"], 1)
    r["units"] = r["requests"]
    r["failed"] = r["errors_status"] + r["errors_io"]
    return r


def sse(s, conc, streams, ttft, gap, tokens, prompts=0):
    cmd = [
        sys.executable,
        os.path.join(HERE, "sse_client.py"),
        "--port",
        str(s.sport),
        "--path",
        s.path,
        "--model",
        s.models["stream"],
        "-c",
        str(conc),
        "-n",
        str(streams),
        "--ttft-ms",
        str(ttft),
        "--gap-ms",
        str(gap),
        "--tokens",
        str(tokens),
        "--prompts",
        str(prompts),
    ]
    for k, v in s.sheaders.items():
        cmd += ["--header", f"{k}: {v}"]
    p = subprocess.run(cmd, capture_output=True, text=True)
    if not p.stdout.strip():
        raise SystemExit(p.stderr[-2000:])
    r = json.loads(p.stdout)
    r["units"] = r["streams"]
    return r


def measure(s, fn, shared):
    a, ua, t = cpu_tree(s.pids), cpu_tree(shared), time.time()
    r = fn()
    b, ub, dt = cpu_tree(s.pids), cpu_tree(shared), time.time() - t
    cpu = sum(b.values()) - sum(a.values())
    up = sum(ub.values()) - sum(ua.values())
    r["sut_cpu_s"], r["upstream_cpu_s"] = round(cpu, 3), round(up, 3)
    r["cpu_ms_per_unit"] = round(1000 * cpu / r["units"], 4) if r["units"] else None
    if r.get("tokens"):
        r["cpu_us_per_token"] = round(1e6 * cpu / r["tokens"], 2)
    r["sut_cores"] = round(cpu / dt, 2)
    if len(b) > 1:
        by = {}
        for p in b:
            try:
                c = open(f"/proc/{p}/cmdline").read().replace("\0", " ").split()
                n = next((os.path.basename(x) for x in c[1:] if not x.startswith("-")), os.path.basename(c[0])) if len(c) > 1 else c[0]
                n = os.path.basename(c[0]) if "envoy" in c[0] else n
                if "--role" in c:
                    n = c[c.index("--role") + 1]
                elif "serve" in c[:-1]:
                    n = c[c.index("serve") + 1]
            except Exception:
                n = str(p)
            by[n] = by.get(n, 0) + b[p] - a.get(p, 0)
        r["cpu_ms_by_process"] = {k: round(1000 * v / r["units"], 3) for k, v in by.items() if v > 0.005} if r["units"] else {}
    return r


SCENARIOS = {
    "chat_c1": ("non-stream miss, 1 connection", lambda s, a: wrk(s, 1, a.seconds, 0)),
    "chat_c16": ("non-stream miss, 16 connections", lambda s, a: wrk(s, 16, a.seconds, 0)),
    "chat_c64": ("non-stream miss, 64 connections", lambda s, a: wrk(s, 64, a.seconds, 0)),
    "words_c64": ("non-stream miss, 64 connections, questions in words of their own", lambda s, a: wrk(s, 64, a.seconds, "words")),
    "stream_c64": ("stream miss, 64 x 64 tokens, paced", lambda s, a: sse(s, 64, a.streams, a.ttft_ms, a.gap_ms, a.tokens)),
    "stream_c8": ("stream miss, 8 x 64 tokens, paced", lambda s, a: sse(s, 8, max(8, a.streams // 8), a.ttft_ms, a.gap_ms, a.tokens)),
    "stream_flood": ("stream miss, 16 at once, unpaced", lambda s, a: sse(s, 16, a.streams, 0, 0, a.tokens)),
    "hit_c1": ("exact cache hit, 1 connection", lambda s, a: wrk(s, 1, a.seconds, 8)),
    "hit_c16": ("exact cache hit, 16 connections", lambda s, a: wrk(s, 16, a.seconds, 8)),
    "hit_stream": ("exact cache hit, streamed, 16 at once", lambda s, a: sse(s, 16, a.streams * 4, a.ttft_ms, a.gap_ms, a.tokens, 8)),
}


def arguments():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("suts", nargs="+")
    a.add_argument("--scenarios", default="chat_c1,chat_c16,chat_c64,stream_c64,hit_c16")
    a.add_argument("--rounds", type=int, default=2)
    a.add_argument("--seconds", type=int, default=4)
    a.add_argument("--streams", type=int, default=256)
    a.add_argument("--ttft-ms", type=float, default=20)
    a.add_argument("--gap-ms", type=float, default=20)
    a.add_argument("--tokens", type=int, default=64)
    a.add_argument("--chat-upstream", choices=["nginx", "paced"], default="nginx")
    a.add_argument("--out", help="write all results to this JSON file")
    a.add_argument("--warmup", type=float, default=2)
    return a.parse_args()


def at_rest(s):
    """What a SUT takes while nobody asks it."""
    c0 = sum(cpu_tree(s.pids).values())
    time.sleep(2)
    rss, pss = mem_tree(s.pids)
    idle = round(1000 * (sum(cpu_tree(s.pids).values()) - c0) / 2, 1)
    return {"boot_s": s.boot, "idle_cpu_ms_per_s": idle, "rss_idle_mib": rss, "pss_idle_mib": pss, "processes": len(tree(s.pids))}


def main():
    a = arguments()
    pj, pp = free_ports(2)
    ups = [
        subprocess.Popen([sys.executable, os.path.join(HERE, "upstream.py"), "json", "--port", str(pj)]),
        subprocess.Popen([sys.executable, os.path.join(HERE, "upstream.py"), "paced", "--port", str(pp)]),
    ]
    shared = [u.pid for u in ups]
    time.sleep(0.7)
    chat = pj if a.chat_upstream == "nginx" else pp
    base = {
        "upstream": f"127.0.0.1:{chat}",
        "upstream_stream": f"127.0.0.1:{pp}",
        "upstream_port": str(chat),
        "upstream_stream_port": str(pp),
    }
    suts, results = [], []
    try:
        for path in a.suts:
            s = Sut(path, base)
            suts.append(s)
            s.start()
            s.warm = wrk(s, 4, max(1, int(a.warmup)), 0)
            if s.warm["failed"] or not s.warm["requests"]:
                print(f"!! {s.name}: warm-up {s.warm}", file=sys.stderr)
        time.sleep(1)
        info = {s.name: at_rest(s) for s in suts}
        for rnd in range(a.rounds):
            for name in a.scenarios.split(","):
                for s in suts:
                    if name.startswith("hit") and not s.spec.get("cache"):
                        continue
                    if name in s.spec.get("skip", []):
                        continue
                    if name.startswith("hit"):  # fill the cache first
                        SCENARIOS[name][1](s, argparse.Namespace(**{**vars(a), "seconds": 1, "streams": 8}))
                        time.sleep(0.3)
                    r = measure(s, lambda: SCENARIOS[name][1](s, a), shared)
                    r.update({"sut": s.name, "scenario": name, "round": rnd})
                    results.append(r)
                    print(
                        f"  r{rnd} {name:13s} {s.name:22s} cpu/unit {r['cpu_ms_per_unit']} ms  "
                        f"{r.get('rps') or r.get('streams_per_s')}/s fail {r['failed']} {r.get('cpu_ms_by_process', '')}",
                        file=sys.stderr,
                    )
        for s in suts:
            info[s.name]["rss_after_mib"], info[s.name]["pss_after_mib"] = mem_tree(s.pids)
    finally:
        for s in suts:
            s.stop()
        for u in ups:
            u.terminate()
            u.wait()
    if a.out:
        json.dump(
            {"args": {k: v for k, v in vars(a).items() if k not in ("suts", "out")}, "info": info, "results": results},
            open(a.out, "w"),
            indent=1,
        )
    table(results, info)


def table(results, info):
    m = lambda rs, k: statistics.median([r[k] for r in rs if r.get(k) is not None]) if any(r.get(k) is not None for r in rs) else None
    f = lambda v, n=2: "-" if v is None else f"{v:.{n}f}"
    for name in dict.fromkeys(r["scenario"] for r in results):
        print(f"\n### {name}: {SCENARIOS[name][0]}\n")
        stream = "stream" in name
        print(
            "| SUT | CPU ms/stream | CPU us/token | tokens/s | TTFT p50 | TTFT p95 | gap p95 | stream p50 (ideal) | failed |"
            if stream
            else "| SUT | CPU ms/req | req/s | p50 ms | p90 ms | p99 ms | SUT cores | failed |"
        )
        print("|---" * (9 if stream else 8) + "|")
        for sut in dict.fromkeys(r["sut"] for r in results if r["scenario"] == name):
            rs = [r for r in results if r["scenario"] == name and r["sut"] == sut]
            if stream:
                print(
                    f"| {sut} | {f(m(rs, 'cpu_ms_per_unit'), 3)} | {f(m(rs, 'cpu_us_per_token'), 1)} | {f(m(rs, 'tokens_per_s'), 0)} | {f(m(rs, 'ttft_p50_ms'), 1)} | "
                    f"{f(m(rs, 'ttft_p95_ms'), 1)} | {f(m(rs, 'gap_p95_ms'), 1)} | {f(m(rs, 'total_p50_ms'), 0)} ({f(m(rs, 'ideal_total_ms'), 0)}) | {sum(r['failed'] for r in rs)} |"
                )
            else:
                print(
                    f"| {sut} | {f(m(rs, 'cpu_ms_per_unit'), 3)} | {f(m(rs, 'rps'), 0)} | {f(m(rs, 'p50_ms'))} | {f(m(rs, 'p90_ms'))} | {f(m(rs, 'p99_ms'))} | "
                    f"{f(m(rs, 'sut_cores'))} | {sum(r['failed'] for r in rs)} |"
                )
    print(
        "\n### memory and start\n\n| SUT | processes | start s | idle CPU ms/s | RSS idle MiB | PSS idle | RSS after | PSS after |\n|---|---|---|---|---|---|---|---|"
    )
    for k, v in info.items():
        print(
            f"| {k} | {v['processes']} | {v['boot_s']} | {v['idle_cpu_ms_per_s']} | {v['rss_idle_mib']} | {v['pss_idle_mib']} | {v.get('rss_after_mib')} | {v.get('pss_after_mib')} |"
        )


if __name__ == "__main__":
    main()
