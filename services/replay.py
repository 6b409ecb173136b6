"""`joulegate replay`: what another routing policy would have chosen, from the log that a router kept of its decisions."""

import json
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from services.router.policy import RoutingPolicy, document_of, parse
from services.router.replay import LogError, Replay, Replayed, Summary, Sums
from services.runtime.settings import SettingsError


def main(file: Path, policy_file: Path | None, decisions: Path | None) -> int:
    """Prints what came out, and writes each decision to a file if one is given. Gives the exit code: 0, or 2 when that is impossible."""
    try:
        policy = None if policy_file is None else _policy(policy_file)
        summary = _replayed(file, policy, decisions)
    except (OSError, LogError, SettingsError, ValueError) as error:
        problems = error.problems if isinstance(error, SettingsError) else [str(error)]
        print("joulegate replay:", *problems, sep="\n  ", file=sys.stderr)
        return 2
    print(*_told(summary), sep="\n")
    return 0


def _policy(file: Path) -> RoutingPolicy:
    """A document as `PUT /api/admin/routing` takes it, or a joulegate.toml."""
    if file.suffix == ".toml":
        return parse(document_of(tomllib.loads(file.read_text())))
    document = json.loads(file.read_text())
    return parse(document.get("policy", document) if isinstance(document, dict) else {})


def _replayed(file: Path, policy: RoutingPolicy | None, decisions: Path | None) -> Summary:
    summary = Summary()
    with file.open(encoding="utf-8") as log, (decisions or Path("/dev/null")).open("w", encoding="utf-8") as out:
        for one in Replay(policy).run(_lines(log)):
            summary.add(one)
            out.write(json.dumps(_document(one)) + "\n")
    return summary


def _lines(log: Iterator[str]) -> Iterator[Mapping[str, Any]]:
    for number, text in enumerate(log, 1):
        try:
            line = json.loads(text)
        except ValueError:
            # A router that was killed leaves half a line.
            print(f"line {number}: not JSON, left out", file=sys.stderr)
            continue
        if not isinstance(line, dict):
            raise LogError(f"line {number}: not a line of a decision log")
        yield line


def _document(one: Replayed) -> dict[str, Any]:
    return {
        "request_id": one.request_id,
        "recorded": {"target": "/".join(one.recorded.target), **one.recorded.prospect._asdict()},
        "replayed": None if one.chosen is None else {"target": "/".join(one.chosen.target), **one.chosen.prospect._asdict()},
        "is_same": one.is_same,
    }


def _told(summary: Summary) -> Iterator[str]:
    changed = summary.decision_count - summary.same_count
    yield f"decisions  {summary.decision_count}, {changed} of them otherwise, {summary.refused_count} refused"
    for name, unit in (("cost_usd", "USD"), ("energy_joules", "J"), ("carbon_grams", "gCO2e")):
        yield _compared(summary.recorded, summary.replayed, name, unit)
    if summary.replayed.unknown_count:
        yield f"           figures of {summary.replayed.unknown_count} choices are not all known, and count as nothing"
    yield f"digest     {summary.digest}"


def _compared(recorded: Sums, replayed: Sums, name: str, unit: str) -> str:
    before, after = getattr(recorded, name), getattr(replayed, name)
    change = f" ({after / before - 1:+.1%})" if before else ""
    return f"expected   {before:.6g} {unit} as recorded, {after:.6g} {unit} now{change}"
