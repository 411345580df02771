"""Debian's senders, and our own with what no other sends, through `all` to the API and back."""

import subprocess
from pathlib import Path

import pytest
from pydicom import FileDataset, dcmread
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian, generate_uid

from tests import factories
from tests.acceptance.pipeline import Pipeline, dataset_sha256, wait_until
from tests.integration.senders import FILES, PRIVATE_CLASS
from tests.integration.test_scp_foreign import SYNTAXES, multi_frame

pytestmark = [pytest.mark.foreign, pytest.mark.slow]


def as_ct(source: Path, target: Path) -> Path:
    """A copy with UIDs of its own (several bundled files share theirs) and of a class that is not refused for its pixels."""
    made = dcmread(source)
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = UID(factories.CT)
    made.Modality, made.ImageType = "CT", ["ORIGINAL", "PRIMARY"]
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid()
    for keyword in ("ConversionType", "BurnedInAnnotation", "SecondaryCaptureDeviceManufacturer"):
        if keyword in made:
            del made[keyword]
    made.save_as(target)
    return target


def syntax(path: Path) -> UID:
    return syntax_of(dcmread(path, stop_before_pixels=True))


def syntax_of(made: FileDataset) -> UID:
    return UID(made.file_meta.TransferSyntaxUID)


def uploaded_or_quarantined(pipeline: Pipeline) -> int:
    return len(pipeline.uploaded()) + sum(pipeline.status()["quarantine"].values())  # type: ignore[attr-defined]


@pytest.mark.needs_tool("dcmsend", "storescu")
def test_what_dcmtk_can_send_arrives_in_every_syntax_and_a_200_mb_multi_frame_with_it(pipeline: Pipeline, tmp_path: Path) -> None:
    files = {as_ct(FILES / name, tmp_path / name): option for name, option in SYNTAXES.values()}
    as_they_are = {DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian}  # dcmsend would rewrite them
    large = multi_frame(tmp_path / "large.dcm")
    assert large.stat().st_size > 200_000_000
    with pipeline.running("all"):
        address = ["127.0.0.1", str(pipeline.port)]
        for_dcmsend = [str(path) for path in files if syntax(path) not in as_they_are]
        subprocess.run(["dcmsend", "-aec", "DICOMRCV", *address, *for_dcmsend], check=True, timeout=60)
        for path, option in files.items():
            if str(path) not in for_dcmsend:
                subprocess.run(["storescu", "-aec", "DICOMRCV", option, *address, str(path)], check=True, timeout=60)
        subprocess.run(["storescu", "-aec", "DICOMRCV", *address, str(large)], check=True, timeout=120)
        wait_until(lambda: uploaded_or_quarantined(pipeline) == len(files) + 1, 120)
    assert {syntax_of(made) for made in pipeline.uploaded_datasets()} == set(map(syntax, files))
    assert len(set(map(syntax, files))) == len(SYNTAXES)
    assert any(len(data) > 200_000_000 for data in pipeline.uploaded().values())
    assert pipeline.status()["quarantine"] == {}


def test_what_lies_in_incoming_is_the_source_byte_for_byte_for_a_private_class_too(pipeline: Pipeline, tmp_path: Path) -> None:
    private = factories.dataset(7)
    private.SOPClassUID = PRIVATE_CLASS
    sources = [factories.write(tmp_path / "private.dcm", private), *(FILES / name for name, _ in SYNTAXES.values())]
    with pipeline.running("scp"):
        assert [sent.status for sent in pipeline.send(sources)] == [0] * len(sources)
    assert sorted(map(dataset_sha256, pipeline.incoming())) == sorted(map(dataset_sha256, sources))
