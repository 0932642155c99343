"""Parts of objects, with little work around each request.

A query reads thousands of small parts. A general client spends more processor time on each of them (rules about
endpoints, events, retries, some forty headers) than the store and the connection together. Here a request is signed
and sent by the parts of that client which do so, and nothing else happens. Whatever does not end with the bytes that
were asked for, from a lost connection to a redirection, is left to the general client, which knows what to do then.
"""

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote, urlsplit

logger = logging.getLogger(__name__)

# After so many refusals, with no part delivered in between, this way is tried once in a while only: keys that are
# changed, or a clock that is wrong, are refused for some time.
_REFUSALS = 5
_PAUSE_S = 60.0
# A missing object, or a store that has too much to do, is nothing that another way of asking would change.
_SAME_FOR_EVERYBODY = frozenset({404, 416, 429, 500, 502, 503, 504})

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive bytes of an object.

    Attributes:
        object_size: Bytes of the whole object.
    """

    content: bytes
    object_size: int


class ObjectRanges:
    """Asks for ranges of the objects of one bucket.

    Args:
        address: URL that keys are appended to.
        region: What requests are signed for.
        credentials: Botocore's credentials, which renew themselves where they expire.
        connections: Botocore's `URLLib3Session`.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        address: str,
        region: str,
        credentials: Any,
        connections: Any,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = address
        self._region = region
        self._credentials = credentials
        self._connections = connections
        self._clock = clock
        self._refusals = 0
        self._next_try = 0.0

    @classmethod
    def of(cls, client: Any, bucket: str, credentials: Any, connections: Any) -> Self:
        """Those of a bucket, which the address of an AWS store names in front where a host name can.

        Args:
            client: Botocore's client, which knows the address of the store.
            bucket: Its name.
            credentials, connections: See the class.
        """
        url = urlsplit(client.meta.endpoint_url)
        path_style = client.meta.config.s3["addressing_style"] == "path" or "." in bucket
        address = f"{url.geturl().rstrip('/')}/{bucket}/" if path_style else f"{url.scheme}://{bucket}.{url.netloc}/"
        return cls(address, client.meta.region_name, credentials, connections)

    def get(self, key: str, of_bytes: str) -> Part | None:
        """One part.

        Args:
            key: The object.
            of_bytes: As in the header Range, such as `bytes=0-9` or `bytes=-10`.

        Returns:
            None if the store did not simply send it.
        """
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.exceptions import BotoCoreError

        if self._refusals >= _REFUSALS and self._clock() < self._next_try:
            return None
        request = AWSRequest("GET", self._address + quote(key, safe="/~"), {"Range": of_bytes})
        try:
            S3SigV4Auth(self._credentials.get_frozen_credentials(), "s3", self._region).add_auth(request)
            answer = self._connections.send(request.prepare())
        except BotoCoreError:
            # Nobody refused anything: a store that does not answer is asked again, as soon as it does.
            return None
        sent = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if answer.status_code != 206 or sent is None:
            if answer.status_code not in _SAME_FOR_EVERYBODY:
                self._count_refusal(answer.status_code)
            return None
        self._refusals = 0
        start, last, object_size = map(int, sent.groups())
        # A connection that ends early is no error to the parts used here.
        return Part(answer.content, object_size) if len(answer.content) == last + 1 - start else None

    def _count_refusal(self, status: int) -> None:
        self._refusals += 1
        self._next_try = self._clock() + _PAUSE_S
        if self._refusals == _REFUSALS:
            logger.warning(
                "the object store refuses the short way to parts of objects (status %d): the general client reads "
                "them, which is slower; the short way is tried again every %.0f s",
                status,
                _PAUSE_S,
            )
