"""Profiles through the real commands: chosen by a setting, by calling AE title, or by a site's own file."""

import shutil
from pathlib import Path

import pytest
from pydicom import FileDataset, dcmread
from pydicom.dataset import Dataset

from dicomrx.vault import State
from tests import factories
from tests.acceptance.pipeline import Pipeline, wait_until


def image(study: int = 1) -> Dataset:
    made = factories.dataset(study)
    made.StudyDescription, made.PatientAge, made.InstitutionName = "CT Thorax Quixano", "093Y", "Hospital of La Mancha"
    return made


def drop(pipeline: Pipeline, made: Dataset) -> None:
    folder = pipeline.storage / "incoming"
    folder.mkdir(parents=True, exist_ok=True)
    factories.write(folder / f"{made.SOPInstanceUID}.dcm", made)


def filed(pipeline: Pipeline) -> list[FileDataset]:
    return [dcmread(path) for path in sorted(pipeline.storage.glob("studies/*/*/*.dcm"))]


def test_research_moves_dates_and_caps_ages_and_cleans_text_and_says_so(pipeline: Pipeline) -> None:
    for study in (1, 2):
        made = image(study)
        made.StudyDate = f"202405{study + 9}"
        drop(pipeline, made)
    pipeline.run("anonymize", "--once", "--profile", "research")
    one, two = sorted(filed(pipeline), key=lambda each: str(each.StudyDate))
    assert not str(one.StudyDate).startswith("2024")
    assert int(two.StudyDate[-2:]) - int(one.StudyDate[-2:]) in {1, -27, -28, -29, -30}  # the next day, in this month or the next
    assert (one.StudyTime, one.PatientAge, one.StudyDescription) == ("101112", "090Y", "CT Thorax")
    assert (one.DeidentificationMethod, one.LongitudinalTemporalInformationModified) == ("dicomrx research 2026c", "MODIFIED")
    assert {code.CodeValue for code in one.DeidentificationMethodCodeSequence} == {"113100", "113105", "113107", "113108", "113111"}
    assert "InstitutionName" not in one or one.InstitutionName == "ANON"
    with State.open(pipeline.state, create=False) as state:
        (record,) = state.vault.find(one.file_meta.MediaStorageSOPInstanceUID)
    assert record.profile == one.DeidentificationMethod
    assert "2 clean, 0 with survivors, 0 not proven" in pipeline.run("verify", str(pipeline.storage / "studies")).stdout


def test_each_calling_title_has_its_own_profile(pipeline: Pipeline, tmp_path: Path) -> None:
    paths = {name: factories.write(tmp_path / f"{name}.dcm", image(study)) for study, name in ((1, "CT1"), (2, "OTHER"))}
    with pipeline.running("all", DICOM_RECEIVER_AE_PROFILES="CT1=basic+retain-institution"):
        for calling, path in paths.items():
            pipeline.send([path], calling=calling)
        wait_until(lambda: len(pipeline.uploaded()) == 2)
    names = {each.DeidentificationMethod: each.InstitutionName for each in pipeline.uploaded_datasets()}
    assert names == {"dicomrx basic+inst 2026c": "Hospital of La Mancha", "dicomrx basic 2026c": "ANON"}
    assert "0 not proven" in pipeline.run("verify", str(pipeline.storage / "sent"), code=None).stdout


def test_kept_uids_stay_inside_and_name_no_folder_or_file(pipeline: Pipeline) -> None:
    made = image()
    drop(pipeline, made)
    pipeline.run("anonymize", "--once", DICOM_RECEIVER_PROFILE="basic+retain-uids")
    (one,) = filed(pipeline)
    assert (one.StudyInstanceUID, one.SOPInstanceUID) == (made.StudyInstanceUID, made.SOPInstanceUID)
    assert one.file_meta.MediaStorageSOPInstanceUID == made.SOPInstanceUID
    assert not [path for path in pipeline.storage.rglob("*") if "1.2.826" in path.name]
    assert "1 clean" in pipeline.run("verify", str(pipeline.storage / "studies")).stdout


def test_a_sites_own_file_is_carried_out_and_needed_to_verify(pipeline: Pipeline) -> None:
    own = pipeline.root / "heart.toml"
    own.write_text('base = "research"\n[rules]\nInstitutionName = "keep"\nPatientSex = "remove"\n')
    drop(pipeline, image())
    pipeline.run("anonymize", "--once", "--profile", str(own))
    (one,) = filed(pipeline)
    assert one.InstitutionName == "Hospital of La Mancha"
    assert "PatientSex" not in one
    assert one.DeidentificationMethod.startswith("dicomrx heart-")
    assert "1 clean" in pipeline.run("verify", str(pipeline.storage / "studies"), "--profile", str(own)).stdout
    assert "name its file with --profile" in pipeline.run("verify", str(pipeline.storage / "studies"), code=66).stderr


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("PROFILE", "everything", "no profile is called 'everything'"),
        ("PROFILE", "basic+retain-everything", "no option is called 'retain-everything'"),
        ("PROFILE", "research+full-dates", "exclude each other"),
        ("PROFILE", "nowhere.toml", "nowhere.toml: No such file"),
        ("PROFILE", "bad.toml", "bad.toml: rules: StudyDate"),
        ("AE_PROFILES", "CT1=everything", "no profile is called 'everything'"),
    ],
)
@pytest.mark.parametrize("command", [("anonymize", "--once"), ("all", "--once"), ("all",)])
def test_a_profile_that_cannot_be_carried_out_ends_with_78_and_the_settings_name(
    pipeline: Pipeline, command: tuple[str, ...], name: str, text: str, says: str
) -> None:
    (pipeline.root / "bad.toml").write_text('[rules]\nStudyDate = "move"\n')
    done = pipeline.run(*command, code=78, **{f"DICOM_RECEIVER_{name}": text})
    assert f"--{name.lower().replace('_', '-')} or DICOM_RECEIVER_{name}=" in done.stderr
    assert says in done.stderr
    shutil.rmtree(pipeline.storage, ignore_errors=True)


def test_one_gateway_does_not_keep_dates_and_move_them_too(pipeline: Pipeline) -> None:
    done = pipeline.run("anonymize", "--once", "--profile", "research", "--ae-profiles", "CT1=basic+full-dates", code=78)
    assert "--profile or DICOM_RECEIVER_PROFILE and --ae-profiles or DICOM_RECEIVER_AE_PROFILES" in done.stderr
