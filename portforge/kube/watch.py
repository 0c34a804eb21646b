"""Follow one collection of the API server: list, then watch, and again, for ever.

Keeps only what ``slim`` makes of an object. Not for typed models, and not for writing.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from portforge.errors import ClusterError
from portforge.kube.client import content, refusal, send, unreachable

if TYPE_CHECKING:
    from kubernetes.client import ApiClient
    from urllib3 import BaseHTTPResponse

__all__ = ["METADATA_ONLY", "Watcher"]

T = TypeVar("T")

METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""``accept`` of a Watcher that needs nothing but metadata."""

_PAGE = "500"
_SILENCE = (5.0, 90.0)
"""Seconds to connect; seconds without a word. A quiet watch gets a bookmark within 75 s."""
_LONGEST_PAUSE = 30.0
_NEWS_EVERY = 5.0
_BEGIN_AGAIN = {410, 504}
"""Gone: the version is compacted. Timeout: the version is of the future, as after a restore."""
_REFUSED = range(400, 500)
"""Of this collection, or of this agent: the server was there."""

_log = logging.getLogger(__name__)


class _Server:
    """News of one API server, shared by all who follow it: that it answers again."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._answers = 0
        self._told = float("-inf")

    def answers_again(self) -> None:
        """Let everybody who waits try at once: else each waits for itself, up to 30 s.

        Seldom: one that answers and refuses by turns must not be asked in a circle.
        """
        with self._news:
            if time.monotonic() - self._told < _NEWS_EVERY:
                return
            self._told = time.monotonic()
            self._answers += 1
            self._news.notify_all()

    def wake(self) -> None:
        """Let those who wait look whether they were stopped."""
        with self._news:
            self._news.notify_all()

    def wait(self, seconds: float, stop: threading.Event) -> bool:
        """Until there is news, or ``stop`` is set, or the time is over; whether there is news."""
        with self._news:
            before = self._answers
            self._news.wait_for(lambda: stop.is_set() or self._answers != before, seconds)
            return self._answers != before


@cache
def _server(host: str) -> _Server:  # noqa: ARG001
    return _Server()


class Watcher(Generic[T]):
    """What a collection holds now, as far as the API server has said.

    While the API server is away it goes on with what it knows.

    Parameters
    ----------
    api: from :func:`portforge.kube.client.connect`.
    path: the collection, such as ``/api/v1/pods``.
    slim: what to keep of an object; None keeps nothing of it. An object that it cannot take
        (KeyError, TypeError, ValueError, AttributeError) is logged and left out.
    params: more of the query, such as ``fieldSelector``.
    on_change: called without arguments, in the watching thread, after something changed.
    on_replaced: called before that with UID, what was kept, and what is now or None, of each that
        changed or went.
    accept: the Accept header; see :data:`METADATA_ONLY`.
    seconds: how long one watch lasts, at most; a tenth of it is jitter.
    """

    def __init__(
        self,
        api: ApiClient,
        path: str,
        slim: Callable[[dict[str, Any]], T | None],
        *,
        params: Mapping[str, str] | None = None,
        on_change: Callable[[], None] | None = None,
        on_replaced: Callable[[str, T, T | None], None] | None = None,
        accept: str = "application/json",
        seconds: int = 300,
    ) -> None:
        self.path = path
        self.changed = 0
        """Raised by one with every change of what is kept."""
        self.problem: ClusterError | None = None
        """Why the collection is not followed just now; None while it is."""
        self.received = 0
        """Bytes received, unpacked."""
        self._api, self._slim, self._params = api, slim, dict(params or {})
        self._on_change = on_change or (lambda: None)
        self._on_replaced = on_replaced or (lambda *_: None)
        self._accept, self._seconds = accept, seconds
        self._items: dict[str, T] = {}
        self._lock = threading.Lock()
        self._stop, self._synced = threading.Event(), threading.Event()
        self._heard = float("-inf")
        self._version = ""
        self._failures = 0
        """In a row; each makes the pause before the next attempt longer."""
        self._response: BaseHTTPResponse | None = None
        self._server = _server(api.configuration.host)
        self._thread = threading.Thread(target=self._run, name=f"watch {path}", daemon=True)

    def start(self) -> Watcher[T]:
        """Begin, in a thread of its own."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End; what is known stays readable."""
        self._stop.set()
        self._server.wake()
        with self._lock:
            response = self._response
        if response is not None:
            self._cut(response)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(5)

    def __enter__(self) -> Watcher[T]:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def items(self) -> dict[str, T]:
        """What is there, by UID: a copy."""
        with self._lock:
            return dict(self._items)

    @property
    def synced(self) -> bool:
        """Whether the whole collection was read at least once."""
        return self._synced.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait until synced, at most so long; whether it is."""
        return self._synced.wait(seconds)

    @property
    def age(self) -> float:
        """Seconds since the last word from the API server about this collection."""
        return time.monotonic() - self._heard

    def _run(self) -> None:
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                if not self._version:
                    self._list()
                if not self._stop.is_set():
                    self._watch()
                self.problem = None
                # A server or a proxy that ends every watch at once must not be asked in a circle.
                failed = time.monotonic() - begun < 1
            except ClusterError as problem:
                failed = True
                self._met(problem)
            except Exception:
                # A thread that died would leave the agent with a picture that only grows older.
                _log.exception("%s: the watch failed", self.path)
                failed = True
                self.problem = ClusterError("the watch failed; see the log", place=self.path)
                self._version = ""
            if failed:
                self._failures += 1
                if self._server.wait(_pause(self._failures), self._stop):
                    self._failures = 1

    def _met(self, problem: ClusterError) -> None:
        if problem.status in _BEGIN_AGAIN and self._version:
            _log.info("listing again: %s", problem)
            self._version = ""
            # The server answers again: what it did not answer before is no reason to wait long.
            self._failures = min(self._failures, 1)
        elif not self._stop.is_set():
            said_before = self.problem is not None
            _log.log(logging.DEBUG if said_before else logging.WARNING, "%s", problem)
            self.problem = problem

    def _list(self) -> None:
        params = {**self._params, "limit": _PAGE}
        found: dict[str, T] = {}
        while not self._stop.is_set():
            page = self._page(params)
            for item in page.get("items") or ():
                self._take(item, found)
            meta = page["metadata"]
            del page
            if not meta.get("continue"):
                self._version = meta["resourceVersion"]
                break
            params["continue"] = meta["continue"]
        else:
            return  # stopped
        with self._lock:
            before, self._items = self._items, found
        self._synced.set()
        self.problem = None
        if before != found or not self.changed:
            self.changed += 1
            for uid, kept in before.items():
                if found.get(uid) != kept:
                    self._on_replaced(uid, kept, found.get(uid))
            self._on_change()

    def _page(self, params: Mapping[str, str]) -> dict[str, Any]:
        headers = {"Accept": self._accept, "Accept-Encoding": "gzip"}
        response = send(self._api, "GET", self.path, params=params, headers=headers)
        data = content(self._api, response)
        self._note(len(data))
        if response.status >= 400:
            raise refusal(response.status, data, self.path)
        self._answered()
        page: dict[str, Any] = json.loads(data)
        return page

    def _answered(self) -> None:
        """The server took a request; where it did not before, the others hear of it."""
        before, self.problem = self.problem, None
        if before is not None and before.status not in _REFUSED:
            self._server.answers_again()

    def _note(self, length: int) -> None:
        self._heard = time.monotonic()
        self.received += length

    def _take(self, item: dict[str, Any], into: dict[str, T]) -> None:
        try:
            uid = item["metadata"]["uid"]
            kept = self._slim(item)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            meta = item.get("metadata") or {}
            name = f"{meta.get('namespace', '')}/{meta.get('name', '?')}"
            _log.warning("%s: %s is left out: %r", self.path, name, error)
            return
        if kept is not None:
            into[uid] = kept

    def _watch(self) -> None:
        """Follow until the server ends it."""
        seconds = max(1, round(self._seconds * random.uniform(0.9, 1)))  # noqa: S311
        response = send(
            self._api,
            "GET",
            self.path,
            params={
                **self._params,
                "watch": "true",
                "allowWatchBookmarks": "true",
                "resourceVersion": self._version,
                "timeoutSeconds": str(seconds),
            },
            headers={"Accept": self._accept.replace("MetadataList", "Metadata")},
            timeout=_SILENCE,
        )
        with self._lock:
            self._response = response
        try:
            if response.status >= 400:
                raise refusal(response.status, content(self._api, response), self.path)
            self._note(0)
            self._answered()
            for line in self._lines(response):
                self._event(json.loads(line))
                self._failures = 0
        finally:
            with self._lock:
                self._response = None
            response.close()

    def _lines(self, response: BaseHTTPResponse) -> Iterator[bytes]:
        from urllib3.exceptions import HTTPError

        rest = b""
        try:
            for chunk in response.stream(65536):
                self._note(len(chunk))
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (line for line in lines if line.strip())
                if self._stop.is_set():
                    return
        except (HTTPError, OSError, ValueError) as error:
            if not self._stop.is_set():
                raise unreachable(self._api, error) from error

    def _event(self, event: dict[str, Any]) -> None:
        kind, item = event["type"], event["object"]
        if kind == "ERROR":
            raise refusal(int(item.get("code") or 500), json.dumps(item).encode(), self.path)
        meta = item["metadata"]
        if kind != "BOOKMARK":
            self._change(kind, meta["uid"], item)
        self._version = meta["resourceVersion"]

    def _change(self, kind: str, uid: str, item: dict[str, Any]) -> None:
        new: dict[str, T] = {}
        if kind != "DELETED":
            self._take(item, new)
        with self._lock:
            before = self._items.pop(uid, None)
            self._items.update(new)
        if new.get(uid) != before:
            self.changed += 1
            if before is not None:
                self._on_replaced(uid, before, new.get(uid))
            self._on_change()

    @staticmethod
    def _cut(response: BaseHTTPResponse) -> None:
        """Wake a thread that reads ``response``."""
        try:
            response.shutdown()
        except (OSError, ValueError, RuntimeError, AttributeError):
            _log.debug("the watch had ended", exc_info=True)


def _pause(failures: int) -> float:
    """Seconds to wait after so many failures: doubling up to 30 s, half of it jitter."""
    longest = min(_LONGEST_PAUSE, 0.5 * 2.0 ** min(failures, 10))
    return random.uniform(longest / 2, longest)  # noqa: S311
