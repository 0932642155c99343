"""Who is told when something needs a look: a log always, and whoever else is configured."""

import json
import logging
import time
from dataclasses import asdict, dataclass
from http.client import HTTPException
from typing import Protocol
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from lakehouse.catalog.settings import Settings

logger = logging.getLogger(__name__)

_TIMEOUT_S = 10.0
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Notice:
    """What needs a look.

    Attributes:
        title: One line.
        text: What there is to know, for people.
        job: The job that failed; empty if it is not about a run.
        run_id: Its run; empty likewise.
        url: The page in the UI; empty if the UI's address is not known.
    """

    title: str
    text: str
    job: str
    run_id: str
    url: str


class Notifier(Protocol):
    """Tells somebody. Another channel is another class with this one method, named in `notifiers`."""

    def tell(self, notice: Notice) -> str | None:
        """Pass it on; returns why that was not possible, None if it was. Never raises."""


class LogNotifier:
    """Writes to the log of the sensor's process."""

    def tell(self, notice: Notice) -> str | None:
        logger.error("%s: %s", notice.title, notice.text)
        return None


class WebhookNotifier:
    """Posts a JSON object with the fields of the notice; most chat programs show its `text`."""

    def __init__(self, url: str, pause_s: float = 1.0) -> None:
        self._url = url
        self._pause_s = pause_s

    def tell(self, notice: Notice) -> str | None:
        body = json.dumps(asdict(notice) | {"text": f"{notice.title}\n{notice.text}\n{notice.url}".strip()})
        problem = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(self._pause_s * 2**attempt)
            request = Request(self._url, body.encode(), {"Content-Type": "application/json"}, method="POST")
            try:
                with urlopen(request, timeout=_TIMEOUT_S):
                    return None
            except HTTPError as error:
                problem = f"the webhook answered {error.code}"
                if error.code < 500 and error.code != 429:
                    break
            except (URLError, OSError, ValueError, HTTPException) as error:
                # The address may hold a secret: it does not belong into a log.
                problem = f"the webhook cannot be reached ({type(error).__name__})"
        return problem


def notifiers(settings: Settings) -> list[Notifier]:
    """Everybody who is to be told."""
    webhook = settings.notify_webhook.get_secret_value()
    return [LogNotifier(), *([WebhookNotifier(webhook)] if webhook else [])]


def tell_everybody(settings: Settings, notice: Notice) -> list[str]:
    """Pass a notice on; returns why that was not possible where it was not."""
    return [problem for each in notifiers(settings) if (problem := each.tell(notice)) is not None]


def page(settings: Settings, path: str) -> str:
    """The address of a page of the UI; empty if the UI's is not known."""
    return f"{settings.dagster_url.rstrip('/')}/{path}" if settings.dagster_url else ""
