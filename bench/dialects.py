"""CPU per streamed token of each dialect, in one process and one interleaved run: `python bench/dialects.py [--tokens N] [--rounds N]`.

Each token's event is fed alone, as it arrives, and made into the message that dispatch sends to the router. The figure to read is the ratio
to OpenAI's dialect: at most 1.5.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "gen")]

from joulegate.chat.v1 import chat_pb2  # noqa: E402
from joulegate.dispatch.v1 import dispatch_service_pb2  # noqa: E402
from services.dispatch.adapters.base import Reply  # noqa: E402
from tests.fakes.dialects import DIALECTS, Dialect  # noqa: E402

ASK = chat_pb2.ChatRequest(model="m", messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, text="Hi")], stream=True)


def cpu_us_per_token(dialect: Dialect, tokens: int) -> float:
    parts = dialect.words.stream_parts(*[" token"] * tokens)
    decoder = dialect.adapter.decoder(ASK, Reply(parts.content_type, "id", 1))
    for _ in decoder.feed(parts.opening):
        pass
    began = time.process_time()
    for piece in parts.pieces:
        dispatch_service_pb2.DispatchResponse(events=list(decoder.feed(piece))).SerializeToString()
    return (time.process_time() - began) / tokens * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    figures: dict[str, list[float]] = {dialect.kind: [] for dialect in DIALECTS}
    for _ in range(arguments.rounds):
        for dialect in DIALECTS:
            figures[dialect.kind].append(cpu_us_per_token(dialect, arguments.tokens))
    baseline = statistics.median(figures["openai"])
    print("| dialect | CPU us/token | ratio to openai |\n|---|---|---|")
    for kind, values in figures.items():
        median = statistics.median(values)
        print(f"| {kind} | {median:.1f} | {median / baseline:.2f} |")


if __name__ == "__main__":
    main()
