"""The command line: ``sidecar run``, ``check``, ``redact``, ``queue`` and ``health``.

What a command does stands in `sidecar.commands`. It is imported when it is called, since
`sidecar health` runs every few seconds and needs nothing of the others.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial

from sidecar import __version__

_RUN_HELP = """\
Take telemetry in, redact it, pass it on. All settings are environment variables; the README
lists them. Without any, redacted telemetry goes to standard output, one JSON object a line.

examples:
  sidecar run
  OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318 sidecar run
  SIDECAR_RULES=/etc/sidecar/rules REDIS_URL=redis://cache:6379 sidecar run
"""
_CHECK_HELP = """\
Load a rules folder, run the tests written in it, and print `file:line: reason` for every fault,
on standard output. Exit with 0 when there is none, else with 1.

Rules that hash need a key. Where SIDECAR_HASH_KEY is not set, they are checked with a fixed one,
so the key of production is not needed here.

examples:
  sidecar check
  sidecar check /etc/sidecar/rules
"""
_REDACT_HELP = """\
Redact text, JSON or NDJSON, from FILE or standard input to standard output, line by line as it
comes in. What no rule changes comes out byte for byte. What could not be redacted is left out and
counted at the end, with exit code 1.

examples:
  kubectl logs -f open-webui-0 | sidecar redact
  sidecar redact app.log > app.redacted.log
  sidecar redact --report --format json dump.json 2> findings.ndjson
  sidecar redact --rules ./my-rules --signal logs < app.log

formats:
  auto    each line that is a JSON object or array is a record, any other is text; an input that
          begins with a JSON document over several lines is redacted as that one document
  text    every line is text, whatever it looks like
  json    all of the input is one JSON document
  ndjson  every line is a JSON record; what is none is left out

A line of text is one value, without its end: in a pattern of your own, ^ and $ stand for the ends
of a line. The lines of a private key are one value together. A line, or a JSON document over
several lines, may take up to 16 MiB.

exit codes:
  0    all of the input was redacted
  1    something could not be read, or was left out
  2    wrong usage
  130  interrupted
"""
_QUEUE_HELP = """\
Look at the durable queue, and at its dead letters: what a target refused for good. It is the one in
SIDECAR_QUEUE_DIR unless --dir names another. The sidecar may run meanwhile; it notices within about
a second what was replayed or dropped.

On a terminal the answer is a table, else it is JSON, one object a line. Records are redacted.

examples:
  sidecar queue status
  sidecar queue list --exporter otlp
  sidecar queue show 17 | jq .attributes
  sidecar queue replay 17 18
  sidecar queue replay --exporter otlp
  sidecar queue drop --all
  sidecar queue --dir /var/lib/sidecar list

exit codes:
  0  done, also when there was nothing to do
  1  the queue cannot be used, or there is no dead letter of that ID
  2  wrong usage
"""
_STATUS_HELP = """\
Print what waits and what is dead, by exporter and signal: records, batches, the bytes that they
take, and for how long the oldest has been there.
"""
_LIST_HELP = """\
Print the dead letters, the newest last: when they were refused, by whom and why.
"""
_SHOW_HELP = """\
Print the records of a dead letter, one JSON object a line, as the stdout exporter writes them.
"""
_REPLAY_HELP = """\
Let dead letters wait for their exporter again, behind all that waits already. What is refused again
is a dead letter again, with a new ID.
"""
_DROP_HELP = """\
Remove dead letters for good.
"""
_LAST_ID = 2**63 - 1  # of SQLite
_HEALTH_HELP = """\
Exit with 0 when the sidecar is ready, else with 1; for container health checks.

examples:
  sidecar health
  sidecar health --url http://127.0.0.1:9090/livez
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    given = _parser().parse_args(arguments)
    try:
        return int(given.call(given))
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sidecar", description="The telemetry sidecar for Open WebUI pods."
    )
    parser.add_argument("--version", action="version", version=f"sidecar {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    command = partial(commands.add_parser, formatter_class=argparse.RawDescriptionHelpFormatter)

    run = command("run", help="run the service", description=_RUN_HELP)
    run.set_defaults(call=_run)

    check = command("check", help="check a rules folder", description=_CHECK_HELP)
    check.add_argument(
        "folder",
        metavar="DIR",
        nargs="?",
        help="the rules folder (default: SIDECAR_RULES, else the one that ships)",
    )
    check.set_defaults(call=_check)

    redact = command("redact", help="redact text or JSON on a pipe", description=_REDACT_HELP)
    redact.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        default="-",
        help="what to read (default: standard input)",
    )
    redact.add_argument(
        "--rules",
        metavar="DIR",
        help="the rules folder (default: SIDECAR_RULES, else the one that ships)",
    )
    redact.add_argument(
        "--report",
        action="store_true",
        help='print {"rule","start","end","path"} for every finding, on standard error',
    )
    redact.add_argument(
        "--signal",
        default="http",
        help="use the rules for traces, metrics, logs, events or http (default: http, as "
        "POST /redact does)",
    )
    redact.add_argument(
        "--format",
        choices=["auto", "text", "json", "ndjson"],
        default="auto",
        help="what the input is (default: auto)",
    )
    redact.set_defaults(call=_redact)

    _add_queue(command("queue", help="look after the durable queue", description=_QUEUE_HELP))

    health = command("health", help="tell whether the service is ready", description=_HEALTH_HELP)
    health.add_argument(
        "--url", help="what to ask (default: /readyz at PROMETHEUS_PORT on this host)"
    )
    health.set_defaults(call=_health)
    return parser


def _add_queue(queue: argparse.ArgumentParser) -> None:
    where = "the queue's directory (default: SIDECAR_QUEUE_DIR)"
    queue.add_argument("--dir", metavar="DIR", help=where)
    actions = queue.add_subparsers(title="actions", required=True, metavar="ACTION")

    def action(name: str, help: str, description: str) -> argparse.ArgumentParser:
        parser = actions.add_parser(name, help=help, description=description)
        # Here too, without a default, which would stand in place of what was given before.
        parser.add_argument("--dir", metavar="DIR", help=where, default=argparse.SUPPRESS)
        parser.set_defaults(call=_queue, action=name)
        return parser

    action("status", "what waits and what is dead", _STATUS_HELP)
    listed = action("list", "the dead letters", _LIST_HELP)
    listed.add_argument("--exporter", metavar="NAME", help="those of one exporter")
    shown = action("show", "the records of a dead letter", _SHOW_HELP)
    shown.add_argument("id", metavar="ID", type=_letter_id, help="as listed")
    for changed in (
        action("replay", "let dead letters wait for their exporter again", _REPLAY_HELP),
        action("drop", "remove dead letters for good", _DROP_HELP),
    ):
        which = changed.add_mutually_exclusive_group(required=True)
        which.add_argument(
            "ids", metavar="ID", nargs="*", type=_letter_id, default=[], help="as listed"
        )
        which.add_argument("--all", action="store_true", help="all of them")
        which.add_argument("--exporter", metavar="NAME", help="those of one exporter")


def _letter_id(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 19 or int(text) > _LAST_ID:
        raise argparse.ArgumentTypeError(f"{text!r} is no ID of a dead letter")
    return int(text)


def _run(_: argparse.Namespace) -> int:
    from sidecar.commands.run import run

    return run()


def _check(given: argparse.Namespace) -> int:
    from sidecar.commands.check import check

    return check(given.folder)


def _redact(given: argparse.Namespace) -> int:
    from sidecar.commands.redact import redact

    return redact(given.file, given.rules, given.format, given.signal, given.report)


def _queue(given: argparse.Namespace) -> int:
    from sidecar.commands import queue

    calls: dict[str, Callable[[], int]] = {
        "status": lambda: queue.status(given.dir),
        "list": lambda: queue.list_letters(given.dir, given.exporter),
        "show": lambda: queue.show(given.dir, given.id),
        "replay": lambda: queue.replay(given.dir, given.ids, given.exporter),
        "drop": lambda: queue.drop(given.dir, given.ids, given.exporter),
    }
    return calls[given.action]()


def _health(given: argparse.Namespace) -> int:
    from sidecar.commands.health import health

    return health(given.url)
