"""What the money, joules and carbon of one request take to compute: `python bench/figures.py`, in microseconds of one core."""

import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "gen")]

from services.ledger.cost import Tariffs, Usage  # noqa: E402
from services.ledger.figures import Figurer  # noqa: E402
from services.ledger.overrides import DeclaredPrice, Overrides  # noqa: E402

CALLS, ROUNDS = 20_000, 9
USAGE = Usage(1200, 300, 400, 50)
MODELS = {
    "by list, catalogued": ("openai", "gpt-4o"),
    "price by date and threshold": ("gemini", "gemini-2.5-pro"),
    "benchmark": ("groq", "llama-3.1-8b-instant"),
    "regression": ("mistral", "mistral-small-latest"),
    "local": ("ollama", "llama3.2:3b"),
    "nothing known": ("lab", "large"),
}


def microseconds(work: Callable[[], object]) -> float:
    """Of one call; the median of the rounds."""
    spent = []
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(CALLS):
            work()
        spent.append((time.process_time() - started) / CALLS * 1e6)
    return median(spent)


def main() -> None:
    overrides = Overrides()
    figurer = Figurer(overrides, Tariffs(overrides, DeclaredPrice(Decimal(3), Decimal(15))))
    for name, (provider, model) in MODELS.items():
        figures = figurer.of_attempt(provider, model, model, USAGE, time.time())
        once = microseconds(lambda: figurer.of_attempt(provider, model, model, USAGE, 1.8e9))
        print(f"{name:30} {once:6.2f} us   {figures.cost_nano_usd / 1e9:.6f} USD, {figures.energy.point / 1e6:.1f} J, {figures.zone}")
    print(f"{'cache hit':30} {microseconds(lambda: figurer.of_hit(1.8e9)):6.2f} us")


if __name__ == "__main__":
    main()
