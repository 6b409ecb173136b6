"""What a complexity score costs: microseconds of CPU for prompts of several sizes.

python -m bench.complexity
"""

import time

from joulegate.chat.v1 import chat_pb2
from services.router.complexity import Scorer

TEXT = (
    "A shop sells 12 boxes of pencils at $3.50 each, and every third box costs half as much. If the owner pays 15% tax on what remains after "
    "buying 40 notebooks for 1.25 dollars, how much is left? Explain each step, and say which of the following statements is not true.\n"
    "A. It depends on the tax.\nB. It does not.\nC. None of them.\n"
)
SIZES = (64, 256, 1024, 4096, 65536)
# Many short rounds: what the machine does besides only ever adds.
ROUNDS, CALLS = 600, 5


def main() -> None:
    scorer = Scorer.load()
    for size in SIZES:
        text = (TEXT * (size // len(TEXT) + 1))[:size]
        request = chat_pb2.ChatRequest(messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, text=text)])
        best = float("inf")
        for _ in range(ROUNDS):
            start = time.thread_time()
            for _ in range(CALLS):
                scorer.score(request)
            best = min(best, (time.thread_time() - start) / CALLS)
        print(f"{size:>6} bytes {best * 1e6:8.1f} us")


if __name__ == "__main__":
    main()
