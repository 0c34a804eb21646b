"""Open a capture's place in an object store, by URL. Says in one sentence what is wrong with it.

S3 takes the standard AWS settings: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN or
~/.aws, AWS_REGION, AWS_ENDPOINT_URL (or AWS_ENDPOINT_URL_S3), AWS_CA_BUNDLE. Every other URL that
pyarrow knows works by its own rules (``gs://``, ``abfs://``, ``fsspec+…://``). What is copied, and
when, is decided by :mod:`portforge.capture` and by the agent.
"""

from __future__ import annotations

import importlib
import os
import re
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pyarrow as pa

from portforge.errors import CaptureError
from portforge.schema import SCHEMA_VERSION

__all__ = ["Store", "Stored", "open_store", "store_url"]

_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+([^/?#]+.*)")
_CODE = re.compile(r"AWS Error ([A-Z_]+|UNKNOWN[^:]*) during (\w+)")
_HTTP = re.compile(r"HTTP response code: (\d+)|\(HTTP status (\d+)\)")
_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ask for rights to this prefix"
_ENDPOINT = "check AWS_ENDPOINT_URL and the network; it is a URL with http:// or https://"
_BUCKET = "check the bucket's name and AWS_ENDPOINT_URL; buckets are not made here"


class Stored(NamedTuple):
    """A file in the store: its path below the prefix, size in bytes, time of its last change."""

    path: str
    size: int
    modified: datetime | None


def store_url(place: str | Path) -> str | None:
    """The URL that ``place`` is, also when a Path made one slash of two; None for a folder.

    >>> store_url("s3://bucket/prefix"), store_url(Path("s3://bucket/prefix")), store_url("capture")
    ('s3://bucket/prefix', 's3://bucket/prefix', None)
    """
    found = _URL.fullmatch(str(place))
    if found is None or (isinstance(place, Path) and place.exists()):
        return None
    return f"{found[1]}://{found[2].rstrip('/')}"


def open_store(url: str) -> Store:
    """The store at ``url``; nothing is asked of it yet.

    Raises
    ------
    CaptureError: the URL or a setting cannot be used.
    """
    clean = store_url(url)
    if clean is None:
        raise CaptureError("not a URL", place=url, remedy="write it as s3://bucket/prefix")
    scheme, _, base = clean.partition("://")
    try:
        if scheme == "s3":
            return Store(clean, _s3(base.partition("/")[0]), base)
        fs = importlib.import_module("pyarrow.fs")
        filesystem, base = fs.FileSystem.from_uri(clean)
    except ImportError as wrong:
        raise CaptureError(
            f"this pyarrow cannot open it ({wrong})", place=url, remedy="install the full pyarrow"
        ) from None
    except (pa.ArrowException, OSError, ValueError) as wrong:
        raise trouble(wrong, url) from None
    return Store(clean, filesystem, base.rstrip("/"))


class Store:
    """A prefix in an object store. Every method raises CaptureError, with a sentence that lasts:
    no request's number, so that one trouble can be told once."""

    def __init__(self, url: str, filesystem: Any, base: str) -> None:
        self.url, self._fs, self._base = url, filesystem, base

    def list(self, below: str = "") -> list[Stored]:
        """Every finished Parquet file below, sorted by path.

        Raises
        ------
        CaptureError: also when there is no such bucket.
        """
        fs = importlib.import_module("pyarrow.fs")
        base = f"{self._base}/{below}".rstrip("/")
        try:
            found = self._fs.get_file_info(
                fs.FileSelector(base, recursive=True, allow_not_found=True)
            )
            if not found:
                self._check_there()
        except (pa.ArrowException, OSError) as wrong:
            raise trouble(wrong, self.url) from None
        files = [
            Stored(name, one.size, one.mtime and one.mtime.astimezone(UTC))
            for one in found
            if one.is_file
            for name in (one.path.removeprefix(f"{self._base}/"),)
            if name.startswith(f"v{SCHEMA_VERSION}/") and name.endswith(".parquet")
        ]
        return sorted(f for f in files if not any(p.startswith(".") for p in f.path.split("/")))

    def put(self, name: str, data: bytes) -> None:
        """Write a whole file under its final name: it is there with all of ``data``, or not."""
        try:
            # Nothing of ours can fail between open and close, which ends the upload.
            with self._fs.open_output_stream(f"{self._base}/{name}") as stream:
                stream.write(data)
        except (pa.ArrowException, OSError) as wrong:
            raise trouble(wrong, self.url) from None

    def get(self, name: str) -> bytes:
        """All of the file ``name``."""
        try:
            with self._fs.open_input_file(f"{self._base}/{name}") as stream:
                return bytes(stream.read())
        except (pa.ArrowException, OSError) as wrong:
            raise trouble(wrong, f"{self.url}/{name}") from None

    def _check_there(self) -> None:
        """An object store has no empty folders, but it must have the bucket."""
        fs = importlib.import_module("pyarrow.fs")
        bucket = self._base.partition("/")[0]
        if self.url.startswith("s3://") and (
            self._fs.get_file_info(bucket).type is fs.FileType.NotFound
        ):
            raise CaptureError("no such bucket", place=self.url, remedy=_BUCKET)


def trouble(wrong: BaseException, place: str) -> CaptureError:
    """What a store's error means, without what differs from one request to the next."""
    text = (str(wrong).splitlines() or [type(wrong).__name__])[0]
    code, status = _CODE.search(text), _HTTP.search(text)
    word = code[1] if code else ""
    number = next((n for n in status.groups() if n), "") if status else ""
    if word == "NO_SUCH_BUCKET":
        return CaptureError("no such bucket", place=place, remedy=_BUCKET)
    if word == "NETWORK_CONNECTION":
        return CaptureError("the store does not answer", place=place, remedy=_ENDPOINT)
    if (
        word in {"ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH"}
        or ("NOT_SIGNED_UP" in word)
        or number in {"401", "403"}
    ):
        return CaptureError("the store refuses these credentials", place=place, remedy=_CREDENTIALS)
    what = f"{word} during {code[2]}" if code else re.sub(r" \(Request ID:[^)]*\)", "", text)
    return CaptureError(f"the store failed ({what.rstrip('.')})", place=place, remedy=_ENDPOINT)


def _s3(bucket: str) -> Any:
    fs = importlib.import_module("pyarrow.fs")
    env = os.environ
    options: dict[str, Any] = {"background_writes": False, "allow_delayed_open": True}
    endpoint = env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL") or ""
    region = env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION")
    if endpoint:
        parts = urlsplit(endpoint)
        if parts.scheme not in {"http", "https"} or not parts.netloc or parts.path.strip("/"):
            raise CaptureError(
                f"AWS_ENDPOINT_URL {endpoint!r} is not http(s)://HOST[:PORT]",
                place=f"s3://{bucket}",
                remedy="correct it",
            )
        options |= {"scheme": parts.scheme, "endpoint_override": parts.netloc}
        region = region or "us-east-1"
    authorities = env.get("AWS_CA_BUNDLE") or _authorities()
    if authorities:
        options["tls_ca_file_path"] = authorities
    try:
        return fs.S3FileSystem(region=region or fs.resolve_s3_region(bucket), **options)
    except OSError:
        raise CaptureError(
            "the bucket's region is not known: no such bucket, or no answer",
            place=f"s3://{bucket}",
            remedy="set AWS_REGION, or AWS_ENDPOINT_URL where it is not AWS",
        ) from None


def _authorities() -> str | None:
    """The certificates of certifi, in an image without a system's own."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile or (paths.capath and any(Path(paths.capath).iterdir())):
        return None
    return str(importlib.import_module("certifi").where())
