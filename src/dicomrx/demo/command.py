"""`dicomrx demo`: the whole pipeline on this machine, and the judgement at its end."""

import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from dicomrx import status as reading
from dicomrx.demo import evidence, hospital
from dicomrx.demo.api_server import DemoApi
from dicomrx.demo.checks import findings
from dicomrx.demo.evidence import Evidence
from dicomrx.demo.gateway import Gateway
from dicomrx.demo.samples import Sample, bundled
from dicomrx.demo.show import Show, hospital_report, report, showing
from dicomrx.demo.stages import Stages
from dicomrx.demo.traffic import Traffic
from dicomrx.errors import CannotCreateError, UnavailableError
from dicomrx.spool.layout import Spool

_FAILED: Final = 1
_SCANS: Final = "scans"
_PATIENCE_S: Final = 100.0
_LOOK_S: Final = 0.5
_RESTORERS: Final = 2
_AT_REST: Final = frozenset({"sent", "failed"})


def run(keep: Path | None, port: int) -> int:
    """Run the demo, its receiver on `port` (0: any free one); returns the exit code.

    0 only if every check passed. `keep` is a new or empty folder that gets everything and stays; raises CannotCreateError.
    """
    console = Console(highlight=False, markup=False, emoji=False)
    os.umask(0o077)
    with _folder(keep) as root:
        samples = bundled()
        started = time.monotonic()
        try:
            found = _pipeline(root, samples, port, console)
        except UnavailableError as error:
            console.print(Text(f"WRONG: {error}", style="bold red"), soft_wrap=True)
            return _FAILED
        seen = Evidence.read(root)
        found += findings(samples, seen)
        report(console, samples, seen, found)
        console.print(_verdict(found, time.monotonic() - started))
        if keep is not None:
            console.print(f"kept: {root}", soft_wrap=True)
        return _FAILED if found else 0


def run_hospital(keep: Path | None, port: int) -> int:
    """Let badly behaved senders at a gateway of the demo's own; returns the exit code, 0 only if each study came out as it must."""
    console = Console(highlight=False, markup=False, emoji=False)
    os.umask(0o077)
    with _folder(keep) as root, DemoApi(root / evidence.API) as api:
        started = time.monotonic()
        try:
            with Stages(root, api, port) as stages:
                outcomes = hospital.run(stages, api, root / _SCANS, lambda line: console.print(line, soft_wrap=True))
                alive = stages.alive
        except UnavailableError as error:
            console.print(Text(f"WRONG: {error}", style="bold red"), soft_wrap=True)
            return _FAILED
        hospital_report(console, outcomes)
        bad = sum(bool(outcome.wrong) for outcome in outcomes) + (not alive)
        console.print(_hospital_verdict(bad, len(outcomes), time.monotonic() - started))
        if keep is not None:
            console.print(f"kept: {root}", soft_wrap=True)
        return _FAILED if bad else 0


def _hospital_verdict(bad: int, behaviours: int, seconds: float) -> Text:
    if bad:
        return Text(f"hospital FAILED in {seconds:.0f} s: {bad} of {behaviours} behaviours", style="bold red")
    return Text(f"hospital passed in {seconds:.0f} s: {behaviours} behaviours, every image once, no study cut", style="bold green")


def _pipeline(root: Path, samples: Sequence[Sample], port: int, console: Console) -> list[str]:
    """Everything up to the end of all processes; what went wrong with these."""
    with DemoApi(root / evidence.API) as api, Gateway(root, api, port) as gateway:
        try:
            gateway.wait()
        except UnavailableError:
            _quote(gateway, console)
            raise
        console.print(f"receiving on port {gateway.port}, uploading to {api.url}")
        console.print(f"to look on: dicomrx status --watch --storage {gateway.settings.storage_dir}", soft_wrap=True)
        traffic = Traffic(samples, gateway.port)
        try:
            with Spool.at(gateway.settings.storage_dir, gateway.settings.zip_dir) as spool, showing(console) as show:
                troubles = _watch(gateway, traffic, spool, show)
                (root / evidence.ANSWERS).write_text(json.dumps(traffic.answers))
                (root / evidence.STATUS).write_text(json.dumps(reading.read(spool).as_json()))
                _restore(gateway, sorted((root / evidence.API).glob("*.zip")), spool, show)
        finally:
            traffic.stop()
        code = gateway.stop()
        if code or troubles:
            _quote(gateway, console)
        return [*troubles, *([f"`dicomrx all` ended with {code}"] if code else [])]


def _watch(gateway: Gateway, traffic: Traffic, spool: Spool, show: Show) -> list[str]:
    """Send, and show the pipeline until nothing is on its way any more; the troubles met."""
    traffic.start()
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        status = reading.read(spool)
        show.update(f"{len(traffic.answers)} of {traffic.total} sent", status)
        if traffic.done and not _on_the_way(status):
            return traffic.troubles
        if not gateway.alive:
            return [*traffic.troubles, "`dicomrx all` ended by itself"]
        if time.monotonic() > deadline:
            return [*traffic.troubles, f"not everything arrived within {_PATIENCE_S:.0f} s"]
        time.sleep(_LOOK_S)


def _on_the_way(status: reading.Status) -> bool:
    return any(queue.waiting for queue in status.stages) or any(study.state not in _AT_REST for study in status.studies)


def _restore(gateway: Gateway, bundles: Sequence[Path], spool: Spool, show: Show) -> None:
    """Restore every zip by the real command. One that fails leaves no originals, which the checks see."""
    out = gateway.root / evidence.RESTORED
    with ThreadPoolExecutor(_RESTORERS) as pool:
        runs = [pool.submit(gateway.restore, bundle, out / bundle.stem) for bundle in bundles]
        try:
            while not all(one.done() for one in runs):
                show.update(f"restoring, {sum(one.done() for one in runs)} of {len(runs)} zips", reading.read(spool))
                time.sleep(_LOOK_S)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _quote(gateway: Gateway, console: Console) -> None:
    for line in gateway.log_tail():
        console.print(Text(f"  log: {line}", style="dim"), soft_wrap=True)


def _verdict(found: Sequence[str], seconds: float) -> Text:
    if found:
        return Text(f"demo FAILED in {seconds:.0f} s: {len(found)} findings", style="bold red")
    return Text(f"demo passed in {seconds:.0f} s: all where expected, once, without identity, and restorable", style="bold green")


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="dicomrx-demo-") as name:
            yield Path(name)
        return
    root = keep.absolute()
    try:
        root.mkdir(parents=True, exist_ok=True)
        taken = any(root.iterdir())
    except OSError as error:
        msg = f"{root} cannot be used: {error.strerror}"
        raise CannotCreateError(msg) from error
    if taken:
        msg = f"{root} is not empty: name a new folder with --keep"
        raise CannotCreateError(msg)
    yield root
