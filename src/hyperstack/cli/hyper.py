"""``hyper``: the operator's command beside ``docker``: kit, doctor, sandboxes, benchmark."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from hyperstack import __version__
from hyperstack.config import Config
from hyperstack.errors import HyperError

DEFAULTS = Config()


def say(text: str) -> None:
    """Print one line for the operator."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _kit_build(options: argparse.Namespace) -> int:
    from hyperstack.guest import kitbuild

    kit = asyncio.run(kitbuild.build(options.kit_dir, say=say, mirror=options.mirror))
    say(f"guest kit {kit.version} is in {kit.path}")
    return 0


def _kit_show(options: argparse.Namespace) -> int:
    from hyperstack.guest.kit import Kit, show

    kit = Kit.load(Config(kit_dir=options.kit_dir).kit)
    if options.verify:
        kit.verify()
    say(show(kit))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from hyperstack.cli import doctor

    failed = 0
    for finding in doctor.examine(Config(kit_dir=options.kit_dir, data_root=options.data_root)):
        say(f"{finding.verdict.value:8} {finding.subject:16} {finding.text}")
        if finding.advice:
            say(f"{'':25} -> {finding.advice}")
        failed += finding.verdict == doctor.Verdict.FAILED
    return 1 if failed else 0


def _sandbox(options: argparse.Namespace) -> int:
    from hyperstack.cli import sandbox

    return sandbox.main(options)


def _bench(options: argparse.Namespace) -> int:
    root = Path(__file__).resolve().parents[3]
    if not (root / "bench" / "__main__.py").is_file():
        raise HyperError("the benchmark is part of the source checkout: run it there")
    sys.path.insert(0, str(root))
    from bench.__main__ import main as bench

    return bench(options.words)


def _version(options: argparse.Namespace) -> int:
    say(f"hyper {__version__}")
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the command's grammar."""
    made = argparse.ArgumentParser(prog="hyper", description=__doc__)
    verbs = made.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    kit = verbs.add_parser("kit", help="the guest kit: what guests are made of")
    kits = kit.add_subparsers(dest="kit_verb", required=True, metavar="COMMAND")
    for name, handler, text in (
        ("build", _kit_build, "assemble it from the distribution's signed archive"),
        ("show", _kit_show, "print what it is made of"),
    ):
        one = kits.add_parser(name, help=text)
        one.add_argument("--kit-dir", type=Path, default=DEFAULTS.kit_dir)
        one.set_defaults(handler=handler)
        if name == "show":
            one.add_argument("--verify", action="store_true", help="read and check every file")
        else:
            one.add_argument("--mirror", help="a Debian mirror (default: the host's own)")
    doctor = verbs.add_parser(
        "doctor", help="what works on this host, and what to do about the rest"
    )
    doctor.add_argument("--kit-dir", type=Path, default=DEFAULTS.kit_dir)
    doctor.add_argument("--data-root", type=Path, default=DEFAULTS.data_root)
    doctor.set_defaults(handler=_doctor)
    _add_sandbox(verbs)
    bench = verbs.add_parser("bench", help="measure the lines of SPECIFICATION.md")
    bench.add_argument("words", nargs=argparse.REMAINDER)
    bench.set_defaults(handler=_bench)
    verbs.add_parser("version", help="print the version").set_defaults(handler=_version)
    return made


def _add_sandbox(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    sandbox = verbs.add_parser("sandbox", help="virtual machines: run one by hand, look at others")
    kinds = sandbox.add_subparsers(dest="sandbox_verb", required=True, metavar="COMMAND")
    run = kinds.add_parser("run", help="boot a guest without a daemon and run a command in it")
    run.add_argument("--runtime", default="", help="hyper-uml, hyper-kvm, hyper-tcg, ...")
    run.add_argument("--memory", type=int, default=512, help="MiB")
    run.add_argument("--rootfs", type=Path, help="a tar of the root (default: the host's busybox)")
    run.add_argument("--kit-dir", type=Path, default=DEFAULTS.kit_dir)
    run.add_argument("command", nargs=argparse.REMAINDER)
    for name, text in (
        ("list", "sandboxes of the running daemon"),
        ("console", "the last lines of a sandbox's console"),
    ):
        one = kinds.add_parser(name, help=text)
        one.add_argument("-H", "--host", default=DEFAULTS.hosts[0])
        if name == "console":
            one.add_argument("sandbox", help="container name or id, or sandbox id")
    sandbox.set_defaults(handler=_sandbox)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; an error is one sentence on stderr and exit status 1."""
    options = parser().parse_args(argv)
    try:
        return int(options.handler(options))
    except HyperError as error:
        sys.stderr.write(f"hyper: {error.message}\n")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
