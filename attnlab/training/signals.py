"""SIGTERM and SIGINT: save at the current step, then leave."""

from collections.abc import Iterator
import contextlib
import os
import signal
import socket
import sys
import threading

SECONDS = 9.0


class Stopped(Exception):
  """The run was asked to stop, and has saved what it had.

  Attributes:
    number: of the signal; the process leaves with 128 + number.
  """

  def __init__(self, number: int):
    super().__init__(signal.Signals(number).name)
    self.number = number


class Signals:
  """Remembers a signal; the loop asks between steps.

  The second signal ends the process at once. So does a first one that nobody
  has answered after `seconds`, because some call takes longer: the last
  checkpoint is whole, whatever happens.
  """

  def __init__(self, seconds: float = SECONDS):
    self._seconds = seconds
    self.number: int | None = None
    self._interruptible = False

  @contextlib.contextmanager
  def listening(self) -> Iterator['Signals']:
    """Handles the signals within; other threads than the main one cannot."""
    if threading.current_thread() is not threading.main_thread():
      yield self
      return
    handled = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in handled}
    # The handler runs between two bytecodes of the main thread, which may be
    # long in coming; the byte that the interpreter writes is seen at once.
    heard, written = socket.socketpair()
    written.setblocking(False)
    wakeup = signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
    threading.Thread(
      target=_watch, args=(heard, self._seconds), daemon=True
    ).start()
    for number in handled:
      signal.signal(number, self._handle)
    try:
      yield self
    finally:
      for number in handled:
        signal.signal(number, before[number])
      signal.set_wakeup_fd(wakeup)
      written.close()

  @contextlib.contextmanager
  def interruptible(self) -> Iterator[None]:
    """Within, a signal raises `Stopped`; for work that leaves no trace."""
    if self.number is not None:
      raise Stopped(self.number)
    self._interruptible = True
    try:
      yield
    except Exception:
      if self.number is None:
        raise
    finally:
      self._interruptible = False
    # What was raised amid a library's call may have become another error there,
    # or have been lost.
    if self.number is not None:
      raise Stopped(self.number)

  def _handle(self, number: int, frame: object):
    del frame
    self.number = number
    for each in (signal.SIGTERM, signal.SIGINT):
      signal.signal(each, signal.SIG_DFL)
    if self._interruptible:
      self._interruptible = False
      raise Stopped(number)


def _watch(heard: socket.socket, seconds: float):
  """Ends the process when a signal has gone unanswered for too long."""
  number = 0
  with heard:
    try:
      while received := heard.recv(1):
        if received[0] in (signal.SIGTERM, signal.SIGINT):
          number = received[0]
          heard.settimeout(seconds)
    except TimeoutError:
      sys.stderr.write('the step does not end in time: left as last saved\n')
      sys.stderr.flush()
      os._exit(128 + number)
