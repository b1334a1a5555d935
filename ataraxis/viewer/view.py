"""`view`: a page of the streams that run, from a program or a notebook."""

from __future__ import annotations

import contextlib
import html
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import webbrowser
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from ataraxis.errors import NotConnectedError
from ataraxis.log.archive import Nodes
from ataraxis.log.optional import need
from ataraxis.session.directory import SessionFolder
from ataraxis.shm.context import Context, ContextLike
from ataraxis.shm.process import ChildProcess, is_readable, process_command, spawn
from ataraxis.viewer.door import VARIABLE, token_of

START_S = 20.0
_END_S = 5.0
_SHOT_S = 30.0
_NOTEBOOK_HZ = 30.0
_LOGS = (".axj", ".npz")
_CLOSED = "the view was closed: make another, ataraxis.view()"


class LiveView:
    """A page that shows streams while they run; made by `ataraxis.view`.

    In a notebook it is a widget, which the kernel feeds. Else a process serves the
    page, from when its link is first asked for until this program ends. Either reads
    the streams as a lossy reader, so that no producer waits for it.

    Parameters
    ----------
    *streams : str
        Names of streams; all of the context by default. Or one directory of a session:
        its streams while it is recorded, else what was recorded.
    seconds : float
        Width of the traces of streams that run, s.
    channels : iterable of int, optional
        Channels that are drawn; all of them by default.
    context : Context, str, Path or None
        Context of the streams.
    fps : float
        Most updates a second.
    history : float
        How long columns are kept, s.
    port : int
        Port on 127.0.0.1; 0: a free one.

    Raises
    ------
    FileNotFoundError
        The directory has neither a session nor a log.

    Examples
    --------
    >>> from ataraxis import Producer, view
    >>> with Producer("doc_view", shape=(3,)) as stream, view("doc_view") as page:
    ...     print(page.url.partition("?")[0].rpartition(":")[0])
    ...     stream.unlink()
    http://127.0.0.1
    """

    def __init__(
        self,
        *streams: str | os.PathLike[str],
        seconds: float = 2.0,
        channels: Iterable[int] | None = None,
        context: ContextLike = None,
        fps: float = 60.0,
        history: float = 60.0,
        port: int = 0,
    ) -> None:
        self.recording = recording_of(streams)
        """Path of the recording that is shown; empty: streams that run."""
        names, place = ((), "") if self.recording else streams_of(streams, context)
        self.streams = names
        """Names of the streams; empty: all of the context, or of the recording."""
        self._options: dict[str, Any] = {
            "names": names,
            "recording": self.recording,
            "context": place,
            "port": port,
            "fps": fps,
            "history_s": history,
        }
        self._seconds = float(seconds)
        self._ranges = _ranges(channels) if channels is not None else []
        self._is_closed = False
        self._pages: list[Path] = []
        self._child: ChildProcess | None = None
        self._url = ""
        self._widget: Any = None

    def _start(self) -> None:
        """Start the process that serves the page, if it does not run."""
        if self._is_closed:
            raise NotConnectedError(
                "the view was closed: make another, ataraxis.view()"
            )
        if self._child is not None:
            return
        need("websockets.asyncio.server", "view", "ataraxis.view()")
        self._child = spawn(
            process_command(f"{__name__}:serve_child", json.dumps(self._options)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, VARIABLE: token_of()},
        )
        try:
            self._url = self._wait_for_url()
        except BaseException:
            self.close()
            raise

    def _wait_for_url(self) -> str:
        assert self._child is not None
        if not is_readable(self._child.stdout.fileno(), START_S):
            raise TimeoutError(f"the view has not started within {START_S:g} s")
        line = self._child.stdout.readline()
        if not line:
            code = self._child.wait(_END_S)
            raise RuntimeError(
                f"the view has ended with code {code}: 'ataraxis view' shows why"
            )
        return str(json.loads(line)["url"])

    # ---- the page

    @property
    def url(self) -> str:
        """The link of the page, with its token; the first use starts its server."""
        self._start()
        if self.recording:
            return self._url
        fragment = {"seconds": f"{self._seconds:g}"}
        if self._ranges:
            fragment["channels"] = ",".join(f"{a}:{b}" for a, b in self._ranges)
        return f"{self._url}#{urlencode(fragment, safe=':,')}"

    @property
    def is_closed(self) -> bool:
        """Whether it was closed, or its server has ended."""
        child = self._child
        return self._is_closed or (child is not None and child.poll() is not None)

    def open(self) -> None:
        """Open the page in a browser.

        Raises
        ------
        NotConnectedError
            The view was closed.
        """
        self._pages.append(open_in_browser(self.url))

    def snapshot(self, path: str | os.PathLike[str], *, wait: float = 2.0) -> Path:
        """Draw the page into a PNG file, `wait` s after it was opened.

        Raises
        ------
        ModuleNotFoundError, FileNotFoundError
            playwright or Chromium is not installed; the message says how to get it.
        """
        what = "a snapshot of a view"
        try:
            playwright: Any = importlib.import_module("playwright.sync_api")
        except ImportError as error:
            raise ModuleNotFoundError(
                f"{what} needs playwright: pip install playwright", name="playwright"
            ) from error
        program = shutil.which("chromium") or shutil.which("google-chrome")
        if program is None:
            raise FileNotFoundError(
                2, f"{what} needs Chromium: apt-get install chromium", "chromium"
            )
        target = Path(path)
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=program)
            try:
                page = browser.new_page(viewport={"width": 1600, "height": 1000})
                page.goto(self.url, timeout=_SHOT_S * 1000)
                page.wait_for_timeout(wait * 1000)
                page.screenshot(path=str(target))
            finally:
                browser.close()
        return target

    # ---- its end

    def close(self) -> None:
        """Stop serving the page. Idempotent."""
        self._is_closed = True
        child, self._child = self._child, None
        widget, self._widget = self._widget, None
        if widget is not None:
            widget.feed.end()
            widget.close()
        for page in self._pages:
            shutil.rmtree(page.parent, ignore_errors=True)
        self._pages.clear()
        if child is None:
            return
        child.stdin.close()  # its input ends, and so does it
        try:
            child.wait(_END_S)
        except TimeoutError:
            child.signal(9)
            child.wait()
        child.stdout.close()

    def __enter__(self) -> LiveView:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_widget") and not self._is_closed:
            self.close()

    def __repr__(self) -> str:
        if self.is_closed:
            return "<View, closed>"
        return f"<View of {self._what}, {self.url}>"

    @property
    def _what(self) -> str:
        if self.recording:
            return f"recording {self.recording}"
        count = len(self.streams)
        return f"{count} stream" + "s" * (count != 1) if count else "every stream"

    # ---- in a notebook

    def _repr_html_(self) -> str:
        """Return what a notebook without the widget shows."""
        from ataraxis.card import html_of

        return html_of("view", self)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """Return the widget, in a notebook; elsewhere None."""
        if self._is_closed or not _is_in_notebook():
            return None
        text = f"<View of {self._what}, in a notebook>"
        try:
            found = self.widget._repr_mimebundle_(**options)
        except ModuleNotFoundError as error:
            return {"text/plain": f"{text}: {error}", "text/html": self._repr_html_()}
        data, about = found if isinstance(found, tuple) else (found, {})
        return {**data, "text/plain": text}, about

    @property
    def widget(self) -> Any:
        """The widget, which needs ``ataraxis[notebook]``; it has no server."""
        if self._is_closed:
            raise NotConnectedError(
                "the view was closed: make another, ataraxis.view()"
            )
        if self._widget is None and self.recording:
            from ataraxis.viewer.recorded_widget import make_recorded_widget

            fps = min(float(self._options["fps"]), _NOTEBOOK_HZ)
            self._widget = make_recorded_widget(self.recording, self.streams, fps)
        elif self._widget is None:
            from ataraxis.viewer.widget import make_widget

            self._widget = make_widget(
                self.streams,
                self._options["context"],
                seconds=self._seconds,
                channels=self._ranges,
                fps=min(float(self._options["fps"]), _NOTEBOOK_HZ),
                history_s=float(self._options["history_s"]),
            )
        return self._widget


def _is_in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


def view(*streams: str | os.PathLike[str], **options: Any) -> LiveView:
    """Show streams while they run, or a recording, on a page in a browser.

    Parameters
    ----------
    *streams : str
        Names of streams, or one directory of a session; all streams by default. A
        session that has ended is shown from hours to single samples.
    **options
        As `LiveView` takes them: ``seconds=``, ``channels=``, ``context=``.

    Returns
    -------
    LiveView
        Its `url` is the link; ``view.open()`` opens it. A context manager; it also ends
        with the program.

    Examples
    --------
    >>> import ataraxis
    >>> with ataraxis.Producer("doc_shown", shape=(3,)) as stream:
    ...     page = ataraxis.view("doc_shown")
    ...     page.close(); stream.unlink(); page
    <View, closed>
    """
    return LiveView(*streams, **options)


def streams_of(
    given: Iterable[str | os.PathLike[str]], context: ContextLike
) -> tuple[tuple[str, ...], str]:
    """Return names of streams, and the path of their context; see `recording_of`."""
    names = tuple(given)
    if len(names) == 1 and Path(names[0]).is_dir():
        record = SessionFolder(names[0]).record()
        return tuple(record.streams), record.context
    return tuple(str(name) for name in names), str(Context.of(context).path)


def recording_of(given: Iterable[str | os.PathLike[str]]) -> str:
    """Return the path of a recording; empty: names of streams were given.

    The directory of a session that is being recorded stands for its streams.

    Raises
    ------
    FileNotFoundError
        The directory has neither a session nor a log.
    """
    names = tuple(given)
    if len(names) != 1:
        return ""
    path = Path(names[0])
    if path.is_dir():
        try:
            is_live = SessionFolder(path).is_live
        except FileNotFoundError:
            is_live = False
        if is_live:
            return ""
    elif not path.is_file() or path.suffix not in _LOGS:
        return ""
    Nodes(path).close()  # raises, before a process is started
    return str(path.absolute())


def open_in_browser(url: str) -> Path:
    """Open a link in a browser; return a file, whose directory is to be removed.

    The browser is given the name of a file that only this user can read, as the command
    line of a process, with its token, can be read by every user.
    """
    page = Path(tempfile.mkdtemp(prefix="ataraxis-view-")) / "view.html"
    link = html.escape(url)
    page.write_text(
        f'<!doctype html><meta http-equiv="refresh" content="0;url={link}">'
        f'<a href="{link}">ataraxis view</a>',
        encoding="utf-8",
    )
    webbrowser.open(page.as_uri())
    return page


def _ranges(channels: Iterable[int]) -> list[list[int]]:
    """Return channels as ranges, [first, end]."""
    found: list[list[int]] = []
    for channel in channels:
        if found and found[-1][1] == channel:
            found[-1][1] += 1
        else:
            found.append([channel, channel + 1])
    return found


def serve_child(text: str) -> None:
    """Serve what a `LiveView` has asked for, until its input ends; an entry."""
    from ataraxis.viewer.server import ViewOptions, ViewServer, serve_until_told

    given = json.loads(text)
    options = ViewOptions(
        **{**given, "names": tuple(given["names"]), "token": token_of()}
    )
    os.environ.pop(VARIABLE, None)

    def tell(server: ViewServer) -> None:
        with contextlib.suppress(OSError):
            sys.stdout.write(json.dumps({"url": server.url}) + "\n")
            sys.stdout.flush()

    serve_until_told(options, tell, with_input=True)
