"""``hyperd``: the daemon's entry point. A failure to start is one sentence and exit status 1."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hyperstack.cli import options
from hyperstack.errors import HyperError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon until it is told to stop; return the exit status."""
    try:
        config, validate = options.parse(sys.argv[1:] if arguments is None else arguments)
        if validate:
            from hyperstack.api.docker.listen import check_hosts
            from hyperstack.api.docker.tls import server_context

            check_hosts(config)
            server_context(config)
            _say("configuration OK")
            return 0
        from hyperstack.cli import daemon

        return daemon.run(config)
    except HyperError as error:
        _say(f"hyperd: {error.message}")
        return 1
    except KeyboardInterrupt:
        return 130


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
