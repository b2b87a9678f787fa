"""A process that does steps: one JSON line in, one out; all other output goes to stderr."""

import json
import os
import sys
import time


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from tests.hub import steps

    for line in sys.stdin:
        name, settings = json.loads(line)
        started = time.monotonic()
        try:
            answer = {"value": getattr(steps, name)(**settings)}
        except Exception as error:  # noqa: BLE001
            seconds = time.monotonic() - started
            answer = {"kind": type(error).__name__, "text": str(error), "seconds": seconds}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
