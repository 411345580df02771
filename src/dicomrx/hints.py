"""File events as a hint that a scan may find something: the only module that knows watchdog."""

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from watchdog.events import DirCreatedEvent, DirMovedEvent, FileCreatedEvent, FileMovedEvent, FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

# The kernel tells of no others: each worker would be told of every file that any of them opens, closes or removes.
_EVENTS: Final[list[type[FileSystemEvent]]] = [FileCreatedEvent, FileMovedEvent, DirCreatedEvent, DirMovedEvent]

log = logging.getLogger(__name__)


class Hints:
    """Sets an event when something happens in a folder. May miss anything: the periodic scan is the truth."""

    def __init__(self, folders: Sequence[Path], wake: threading.Event) -> None:
        self._folders = folders
        self._handler = _Wake(wake)
        self._observer: BaseObserver | None = None
        self._told = False
        self._lock = threading.Lock()
        self.tend()

    def tend(self) -> None:
        """Start the observer, or start it again where a thread of it has died or a folder was replaced."""
        with self._lock:
            if self._observer is None or not self._is_well(self._observer):
                self._start()

    def _start(self) -> None:
        self.close()
        observer = Observer()
        try:
            for folder in self._folders:
                observer.schedule(self._handler, str(folder), event_filter=_EVENTS)
            observer.start()
        except OSError as error:  # no inotify instance or watch left: scans alone do
            if not self._told:
                log.warning("no file events (%s): polling", error.strerror)
            self._told = True
            return
        self._observer, self._told = observer, False

    @staticmethod
    def _is_well(observer: BaseObserver) -> bool:
        return observer.is_alive() and all(emitter.is_alive() for emitter in observer.emitters)

    def close(self) -> None:
        """Stop watching."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = None


class _Wake(FileSystemEventHandler):
    def __init__(self, wake: threading.Event) -> None:
        self._wake = wake

    def on_any_event(self, _event: FileSystemEvent) -> None:
        self._wake.set()
