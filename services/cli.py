"""The program `joulegate`."""

import argparse
import asyncio
import importlib
import os
import sys
from importlib import metadata
from pathlib import Path

from services.runtime.settings import SettingsError, read_environment

MAINS = {
    "router": "services.router.__main__",
    "cache": "services.cache.__main__",
    "dispatch": "services.dispatch.__main__",
    "ledger": "services.ledger.__main__",
    "all": "services.all",
}


def main() -> int:
    """Runs a command and gives its exit code. Each imports only what it needs."""
    options = _parser().parse_args()
    match options.command:
        case "up":
            from services.up import gateway

            return gateway.main(options.one_process)
        case "serve":
            # The arrays here are small: threads for their linear algebra would cost memory, and more waiting than they save.
            os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
            return int(importlib.import_module(MAINS[options.name]).main())
        case "ledger":
            return _look_after_books(options)
        case "replay":
            from services import replay

            return replay.main(options.log, options.policy, options.decisions)
        case "warm":
            return _warm(options)
        case "envoy-config":
            return _write_envoy_config(options.clusters, options.listen, options.out)
        case _:
            from services.up import probe

            return 0 if asyncio.run(probe.is_serving(options.address, options.service)) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="joulegate", description="An OpenAI-compatible LLM gateway that counts joules.")
    parser.add_argument("--version", action="version", version=f"joulegate {metadata.version('joulegate')}")
    commands = parser.add_subparsers(dest="command", required=True)

    up = commands.add_parser("up", help="run Envoy and the services on this machine")
    up.add_argument("--one-process", action="store_true", help="all services in one process")

    serve = commands.add_parser("serve", help="run one service, or all in one process, without Envoy")
    serve.add_argument("name", choices=MAINS)

    _add_ledger(commands.add_parser("ledger", help="look after the books").add_subparsers(dest="work", required=True))

    warm = commands.add_parser("warm", help="put answers into the cache of a running gateway before anybody asks")
    warm.add_argument("file", type=Path, help="JSON lines: docs/cache.md says what they hold")
    warm.add_argument("--url", default="http://127.0.0.1:8000", help="the gateway (default: %(default)s); its ADMIN_API_KEY is needed")
    warm.add_argument("--model", default="", help="for lines that name none")
    warm.add_argument("--tenant", default="", help="whose answers they are, `team:red` say (default: anonymous callers)")
    warm.add_argument("--namespace", default="", help="as in x-cache-namespace")

    replay = commands.add_parser("replay", help="say what another routing policy would have chosen")
    replay.add_argument("log", type=Path, help="the file that ROUTING_LOG named")
    replay.add_argument("--policy", type=Path, metavar="FILE", help="JSON or joulegate.toml; without it the recorded policies decide again")
    replay.add_argument("--decisions", type=Path, metavar="OUT", help="write each decision as a line of JSON")

    config = commands.add_parser("envoy-config", help="write Envoy's configuration into a folder")
    config.add_argument("--clusters", choices=["compose"], default="compose", help="where the services are (default: %(default)s)")
    config.add_argument("--listen", default="0.0.0.0:8000", metavar="HOST:PORT", help="where Envoy is to listen (default: %(default)s)")
    config.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder, at the path where Envoy will see it")

    probe = commands.add_parser("probe", help="exit with 0 if a gRPC service says that it is healthy")
    probe.add_argument("address", help="host:port or unix:/path")
    probe.add_argument("service", nargs="?", default="", help="full name of the service; without it the process is asked for")
    return parser


def _add_ledger(works: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    migrate = works.add_parser("migrate", help="bring the books up to date, as the ledger does itself when it starts")
    migrate.add_argument("--down", metavar="REVISION", help="back to what an earlier program wrote")
    migrate.add_argument("--sql", action="store_true", help="print the SQL and change nothing")

    verify = works.add_parser("verify", help="exit with 0 if the books are what was booked, and say what is wrong with them if not")
    verify.add_argument(
        "--anchor", action="append", default=[], metavar="CHAIN:LINK:HASH", help="the end of a chain as an earlier run printed it"
    )

    export = works.add_parser("export", help="write rows of the books to a file")
    export.add_argument("--format", choices=["csv", "jsonl", "parquet"], default="csv", help="(default: %(default)s)")
    export.add_argument("--since", metavar="TIME", help="only requests that began then or later: 2026-01-31, or 2026-01-31T00:00:00Z")
    export.add_argument("--until", metavar="TIME", help="only requests that began earlier")
    export.add_argument("-o", dest="out", type=Path, metavar="FILE", help="the file (default: standard output)")

    rerate = works.add_parser("rerate", help="say what rows would cost and take with the present prices and factors, and change nothing")
    rerate.add_argument("--since", metavar="TIME", help="only requests that began then or later")
    rerate.add_argument("--until", metavar="TIME", help="only requests that began earlier")


def _look_after_books(options: argparse.Namespace) -> int:
    from services.ledger import commands

    match options.work:
        case "migrate":
            return commands.migrate(options.down or "head", options.sql)
        case "export":
            return commands.export(options.format, options.since, options.until, options.out)
        case "rerate":
            return commands.rerate(options.since, options.until)
        case _:
            return commands.verify(options.anchor)


def _warm(options: argparse.Namespace) -> int:
    from services import warm

    admin_key = read_environment(os.environ).get("ADMIN_API_KEY", "")
    return warm.main(options.file, warm.Destination(options.url, admin_key, options.tenant, options.namespace, options.model))


def _write_envoy_config(clusters: str, listen: str, folder: Path) -> int:
    from services.up import edge, settings

    try:
        # HOST is what the world sees, which decides whether a key is needed; where Envoy listens inside its container is another thing.
        loaded = settings.load(read_environment(os.environ))
    except SettingsError as error:
        print("joulegate envoy-config: wrong settings:", *error.problems, sep="\n  ", file=sys.stderr)
        return 2
    host, _, port = listen.rpartition(":")
    path = folder.absolute()
    print(edge.write(edge.Edge(path, host, int(port), Path("/tmp/envoy-admin.sock"), clusters, loaded.cors_origins), path))
    return 0


if __name__ == "__main__":
    sys.exit(main())
