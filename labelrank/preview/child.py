"""The process that looks: `python -m labelrank.preview.child MAX_BYTES PARENT PIPE`."""

from __future__ import annotations

import json
import sys
from typing import Any, get_type_hints

from labelrank.errors import LabelRankError
from labelrank.json_values import plain, typed
from labelrank.memory import lacks_memory
from labelrank.preview import asking
from labelrank.preview.looks import LOOKS
from labelrank.processes import Failure, answer_requests, limit_memory, limit_time


def answer(request: bytes) -> bytes:
    """Return the answer to a request of `labelrank.preview.asking`: a result, or the error that its look raised."""
    asked = json.loads(request)
    look = LOOKS[asked["look"]]
    kinds = [kind for name, kind in get_type_hints(look).items() if name != "return"]
    limit_time(asked["seconds"])
    told: dict[str, Any]
    try:
        arguments = [typed(value, kind) for value, kind in zip(asked["arguments"], kinds, strict=True)]
        told = {"result": plain(look(*arguments))}
        if len(sent := json.dumps(told).encode()) <= asking.MAX_ANSWER_BYTES:
            return sent
        told = {"too_long": len(sent)}
    except Exception as error:  # noqa: BLE001 - every error must reach the parent
        told = {"no_memory": True} if lacks_memory(error) else {"failure": plain(Failure.of(error))}
        if not isinstance(error, LabelRankError) and not lacks_memory(error):
            sys.excepthook(type(error), error, error.__traceback__)  # into the server's log
    finally:
        limit_time(0)
    return json.dumps(told).encode()


if __name__ == "__main__":
    limit_memory(int(sys.argv[1]))
    answer_requests(sys.argv[2:], answer)
