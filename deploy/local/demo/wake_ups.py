"""Read what Celery has left in Valkey for the task worker."""

import base64
import json
from collections.abc import Iterable


def operations_in(messages: Iterable[bytes | str]) -> set[str]:
    """The ids of the operations that these messages, as they lie in a queue, ask the worker to carry out.

    One message may be about several. Raises KeyError or ValueError for what is not a message of ours.
    """
    batches = [json.loads(base64.b64decode(json.loads(each)["body"]))[0][0] for each in messages]
    return {errand[0] for batch in batches for errand in batch}
