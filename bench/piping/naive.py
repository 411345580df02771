"""What one would write first: pynetdicom receives, pydicom de-identifies what lies in a folder, zipfile zips what has been quiet.

usage: naive.py PORT FOLDER

Nothing is synced, checked or kept; it removes far less than the profile wants. Two processes, as there are two cores.
"""

import hashlib
import multiprocessing
import sys
import time
import zipfile
from pathlib import Path

from pydicom import dcmread
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification

QUIET_S = 1.0
_LOOK_S = 0.05
_EMPTIED = frozenset({"AE", "LO", "LT", "PN", "SH", "ST", "UT", "DA", "DT", "TM"})


def receive(event, incoming):
    dataset = event.dataset
    dataset.file_meta = event.file_meta
    part = incoming / f"{dataset.SOPInstanceUID}.part"
    dataset.save_as(part, enforce_file_format=True)
    part.rename(part.with_suffix(".dcm"))
    return 0


def change(_dataset, element):
    if element.VR in _EMPTIED:
        element.value = ""
    elif element.VR == "UI" and element.keyword not in ("SOPClassUID", "ReferencedSOPClassUID"):
        element.value = f"2.25.{int(hashlib.sha256(str(element.value).encode()).hexdigest()[:32], 16)}"


def deidentified(path):
    dataset = dcmread(path)
    dataset.remove_private_tags()
    dataset.walk(change)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def deidentify(path, studies):
    dataset = deidentified(path)
    folder = studies / dataset.StudyInstanceUID / dataset.SeriesInstanceUID
    folder.mkdir(parents=True, exist_ok=True)
    dataset.save_as(folder / f"{dataset.SOPInstanceUID}.dcm", enforce_file_format=True)
    path.unlink()
    return dataset.StudyInstanceUID


def pack(study, studies, zips):
    part = zips / f"{study}.part"
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as out:
        for path in sorted((studies / study).rglob("*.dcm")):
            out.write(path, path.relative_to(studies))
    part.rename(zips / f"{study}.zip")


def work(incoming, studies, zips):
    newest = {}
    while True:
        for path in sorted(incoming.glob("*.dcm")):
            newest[deidentify(path, studies)] = time.monotonic()
        for study in [study for study, seen in newest.items() if time.monotonic() - seen > QUIET_S]:
            pack(study, studies, zips)
            del newest[study]
        time.sleep(_LOOK_S)


def main():
    port, root = int(sys.argv[1]), Path(sys.argv[2])
    folders = [root / name for name in ("incoming", "studies", "zips")]
    for folder in folders:
        folder.mkdir()
    multiprocessing.Process(target=work, args=folders, daemon=True).start()
    entity = AE()
    entity.supported_contexts = [*AllStoragePresentationContexts[:120]]
    entity.add_supported_context(Verification)
    entity.start_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_C_STORE, receive, [folders[0]])])


if __name__ == "__main__":
    main()
