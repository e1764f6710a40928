"""``python -m mailprefs`` is the ``mailprefs`` command."""

from __future__ import annotations

import signal


def main(prog_name: str = "mailprefs") -> None:
    """Run one command and end the process with its exit status. Who presses Ctrl-C while it is still being loaded is shown no traceback."""
    impatient = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if impatient:  # and not told by whoever started us to pass it over
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from mailprefs import cli

    if impatient:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    cli.main(prog_name)


if __name__ == "__main__":
    main()
