"""States, records and child processes for the tests of the vault."""

import contextlib
import io
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from dicomrx.vault import Original, Own, Patient, Placeholders, Position, State, Who, identify

OURS = Placeholders()
MADE = sha256(b"made").hexdigest()


def content(number: int, size: int) -> bytes:
    return random.Random(number).randbytes(size)


def who(patient_id: str = "", study: str = "", /, **facts: str) -> Who:
    """An instance's claim; its study is the patient's only one unless it is named."""
    says = {"issuer": "", "name": "", "birth_date": "", **facts}
    return identify(patient_id=patient_id, study_uid=study or f"study of {patient_id}", placeholders=OURS, **says)


def original(
    patient: Patient,
    instance: str = "2.25.3",
    data: bytes = b"",
    *,
    output: str | Own = MADE,
    dataset: int = 0,
    pixels: range = range(0),
) -> Original:
    return Original(
        study="2.25.1",
        series="2.25.2",
        instance=instance,
        patient=patient,
        profile="basic",
        output=output,
        dataset_sha256=sha256(data[dataset:]).hexdigest(),
        transfer_syntax="1.2.840.10008.1.2.1",
        dataset=dataset,
        pixels=pixels,
    )


def put(state: State, one: Original, source: io.BytesIO) -> Position:
    """Put an original in, durably, with the digest of what it is made of."""
    one = replace(one, dataset_sha256=sha256(source.getvalue()[one.dataset :]).hexdigest())
    position = state.vault.append(one, source, len(state.vault.find(one.instance)))
    state.vault.sync()
    return position


def restored(state: State, instance: str) -> list[bytes]:
    found = []
    for record in state.vault.find(instance):
        out = io.BytesIO()
        state.vault.restore(record, out)
        found.append(out.getvalue())
    return found


@contextlib.contextmanager
def child(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process of its own, killed at the end if it still lives."""
    process = subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd())
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
