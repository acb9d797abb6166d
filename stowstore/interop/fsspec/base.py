"""What both file systems have in common: how files are opened and read side by side."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from typing import Any, Final

from fsspec.spec import AbstractFileSystem

from datastore.errors import ConfigError
from stowstore.interop.fsspec.threads import executor
from stowstore.interop.fsspec.urls import path_of, query_of
from stowstore.interop.fsspec.writing import AtomicFile, opened_for_writing
from stowstore.whole_files import whole_file

__all__ = ["StowBase"]

#: What fsspec gives every file system, and is no option of a store.
_FSSPEC_OPTIONS: Final = frozenset(
    {
        "asynchronous",
        "auto_mkdir",
        "batch_size",
        "listings_expiry_time",
        "loop",
        "max_paths",
        "skip_instance_cache",
        "use_listings_cache",
    }
)


class StowBase(AbstractFileSystem):
    """Paths are what stands in a URL between the protocol and the options; ``query`` are the options of the URL.

    Everything else that is given, as fsspec's ``storage_options``, are options of the store's kind, credentials among
    them.  They travel when the file system is pickled; what comes from the environment or a file does not.
    """

    protocol: str
    root_marker = ""
    sep = "/"

    def __init__(self, query: str = "", **options: Any) -> None:
        super().__init__(query=query, **options)
        self._query = query
        self._options = {name: value for name, value in options.items() if name not in _FSSPEC_OPTIONS}
        # fsspec asks the class; asked through an instance, a URL has to be one of this instance.
        self._strip_protocol = self._own_path  # type: ignore[method-assign]

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        text = path if isinstance(path, str) else str(path)
        return path_of(text, cls.protocol)

    def _own_path(self, path: Any) -> Any:
        """The path of a URL of this file system.

        Raises:
            ConfigError: the URL has options of its own, which would not be used.
        """
        if isinstance(path, str) and path.startswith(f"{self.protocol}://"):
            query = query_of(path)
            if query and query != self._query:
                raise ConfigError(
                    f"{path} has other options than the file system it is given to",
                    hint=f"give fsspec the URL, or this one the path: {path_of(path, self.protocol)}",
                )
        if isinstance(path, list):
            return [self._own_path(one) for one in path]
        return type(self)._strip_protocol(path)

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        query = query_of(path) if "://" in path else ""
        return {"query": query} if query else {}

    def unstrip_protocol(self, name: str) -> str:
        """The URL of a path, with the options the file system was opened with by URL."""
        if name.startswith(f"{self.protocol}://"):
            return name
        return f"{self.protocol}://{name}{'?' if self._query else ''}{self._query}"

    def open(
        self,
        path: Any,
        mode: str = "rb",
        block_size: int | None = None,
        cache_options: dict[str, Any] | None = None,
        compression: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Opens a file, as `fsspec.spec.AbstractFileSystem.open`.

        One that is written appears when it is closed, whole.  It does not when the ``with`` block of what is returned
        here is left by an exception; `fsspec.open` does not hand that on, and a `transaction` does.
        """
        if "+" in mode or "r" in mode:
            return super().open(path, mode, block_size, cache_options, compression, **kwargs)
        text: dict[str, Any] = {name: kwargs.pop(name) for name in ("encoding", "errors", "newline") if name in kwargs}
        at_once = kwargs.pop("autocommit", not self._intrans)
        binary = mode.replace("t", "").replace("b", "") + "b"
        file: AtomicFile = self._open(self._strip_protocol(path), binary, autocommit=at_once, **kwargs)
        if not at_once:
            self.transaction.files.append(file)
        return opened_for_writing(file, mode, compression, text)

    def get_file(self, rpath: str, lpath: Any, callback: Any = None, outfile: Any = None, **kwargs: Any) -> None:
        """Copies a file to the local disk; what is there is replaced when all of it has come."""
        if self.isdir(rpath):
            os.makedirs(lpath, exist_ok=True)
            return
        size, pieces = self._pieces(rpath)
        if callback is not None:
            callback.set_size(size)
        if outfile is not None or hasattr(lpath, "write"):
            _pump(pieces, outfile or lpath, callback)
            return
        os.makedirs(os.path.dirname(os.fspath(lpath)) or ".", exist_ok=True)
        with whole_file(lpath) as file:
            _pump(pieces, file, callback)

    def cat_ranges(
        self, paths: Any, starts: Any, ends: Any, max_gap: int | None = None, on_error: str = "return", **kwargs: Any
    ) -> list[Any]:
        """Ranges of files, fetched side by side; ranges are not joined, so ``max_gap`` changes nothing."""
        if not isinstance(paths, list):
            raise TypeError("paths is a list of paths, one a range")
        begins = starts if isinstance(starts, list) else [starts] * len(paths)
        stops = ends if isinstance(ends, list) else [ends] * len(paths)
        if not len(paths) == len(begins) == len(stops):
            raise ValueError("paths, starts and ends are of one length")
        return self._side_by_side(self.cat_file, zip(paths, begins, stops, strict=True), on_error=on_error)

    def cat(self, path: Any, recursive: bool = False, on_error: str = "raise", **kwargs: Any) -> Any:
        """The content of a file, or of many side by side, by path."""
        paths = self.expand_path(path, recursive=recursive)
        if len(paths) == 1 and not isinstance(path, list) and paths[0] == self._strip_protocol(path):
            return self.cat_file(paths[0], **kwargs)
        files = [one for one in paths if not (recursive and self.isdir(one))]
        found = self._side_by_side(self.cat_file, [(one,) for one in files], on_error=on_error)
        kept = zip(files, found, strict=True)
        return {name: data for name, data in kept if on_error != "omit" or not isinstance(data, Exception)}

    @abstractmethod
    def _pieces(self, path: str) -> tuple[int, Iterator[bytes]]:
        """The size of a file and its content; what that needs is freed at its end."""

    def _side_by_side(
        self, call: Callable[..., Any], arguments: Iterable[Sequence[Any]], *, on_error: str = "raise"
    ) -> list[Any]:
        """The results of calls in other threads, in order; those that fail are their errors where that is wanted."""
        running: list[Future[Any]] = [executor().submit(copy_context().run, call, *one) for one in arguments]
        results: list[Any] = []
        try:
            for one in running:
                try:
                    results.append(one.result())
                except Exception as error:
                    if on_error == "raise":
                        raise
                    results.append(error)
        finally:
            for one in running:
                one.cancel()
        return results


def _pump(pieces: Iterator[bytes], file: Any, callback: Any) -> None:
    for piece in pieces:
        file.write(piece)
        if callback is not None:
            callback.relative_update(len(piece))
