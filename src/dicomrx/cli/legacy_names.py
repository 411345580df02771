"""The command names of the older tool, for scripts and cron lines that have them."""

import sys

from dicomrx.__main__ import main


def _as(command: str) -> None:
    sys.argv[1:1] = [command]
    main()


def receiver() -> None:
    """`dicom-receiver`, `dicom_receiver_start.py`."""
    _as("all")


def restore() -> None:
    """`dicom-restore`, `restore_dicom_info.py`."""
    _as("restore")


def upload() -> None:
    """`upload_study.py`."""
    _as("upload")


def config() -> None:
    """`dicom_config.py`."""
    _as("config")
