"""Golden files: reviewed text that a dialect's results are compared with. JOULEGATE_UPDATE_GOLDEN=1 writes them anew."""

import json
import os
from pathlib import Path
from typing import Any

ROOT = Path(__file__).with_name("golden")
_IS_UPDATE = os.environ.get("JOULEGATE_UPDATE_GOLDEN") == "1"


def check(path: Path, text: str) -> None:
    """Fails when the file says otherwise, or is not there."""
    if _IS_UPDATE:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert path.exists(), f"{path} is missing"
    assert text == path.read_text(), f"{path} says otherwise"


def pretty(value: Any) -> str:
    """JSON for human eyes."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
