"""Takes the one file out of a multipart/form-data body as it comes in (RFC 7578), in little memory at any size."""

from collections.abc import Callable
from email.message import Message
from email.parser import BytesHeaderParser
from typing import Final, Protocol

_CHUNK: Final = 1 << 16
_MAX_HEADERS: Final = 1 << 14


class MalformedBodyError(ValueError):
    """The body is not the multipart form that its headers promise."""


class Readable(Protocol):
    """What a body is read from."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at its end."""
        ...


def boundary_of(content_type: str) -> bytes:
    """The delimiter named by a Content-Type header; raises MalformedBodyError."""
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_boundary()
    if header.get_content_type() != "multipart/form-data" or not boundary:
        raise MalformedBodyError
    return boundary.encode()


def receive_file(body: Readable, boundary: bytes, write: Callable[[bytes], object]) -> str:
    """Hand the content of the part named `file`, which is to be the only one, to `write`; the answer is its file name."""
    buffer = _Buffer(body)
    # The line end is part of every delimiter but the first.
    if buffer.until(b"--" + boundary + b"\r\n"):
        raise MalformedBodyError
    headers = BytesHeaderParser().parsebytes(buffer.until(b"\r\n\r\n"))
    if headers.get_param("name", header="content-disposition") != "file":
        raise MalformedBodyError
    buffer.copy_until(b"\r\n--" + boundary + b"--", write)
    return headers.get_filename() or ""


class _Buffer:
    def __init__(self, body: Readable) -> None:
        self._body = body
        self._data = b""

    def _more(self) -> None:
        chunk = self._body.read(_CHUNK)
        if not chunk:
            raise MalformedBodyError
        self._data += chunk

    def until(self, end: bytes) -> bytes:
        """The bytes before `end`, which is skipped."""
        while end not in self._data:
            if len(self._data) > _MAX_HEADERS:
                raise MalformedBodyError
            self._more()
        head, _, self._data = self._data.partition(end)
        return head

    def copy_until(self, end: bytes, write: Callable[[bytes], object]) -> None:
        """Write the bytes before `end`, keeping back only what might be its beginning."""
        while (found := self._data.find(end)) < 0:
            keep = len(self._data) - len(end) + 1
            if keep > 0:
                write(self._data[:keep])
                self._data = self._data[keep:]
            self._more()
        write(self._data[:found])
