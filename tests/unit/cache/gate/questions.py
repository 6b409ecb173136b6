"""The sample of questions: groups of wordings that one answer fits, with near misses that it does not. The project's own text."""

import json
from dataclasses import dataclass
from pathlib import Path

_FILE = Path(__file__).parent / "questions.jsonl"


@dataclass(frozen=True, slots=True)
class Group:
    """Wordings of one question, and near misses of it."""

    same: tuple[str, ...]
    different: tuple[str, ...]


def groups() -> list[Group]:
    rows = [json.loads(line) for line in _FILE.read_text(encoding="utf8").splitlines()]
    return [Group(tuple(row["same"]), tuple(row["different"])) for row in rows]
