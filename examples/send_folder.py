"""Send every DICOM file under a folder to a receiver, byte for byte, and say what it did not take.

    python examples/send_folder.py FOLDER [--host 127.0.0.1] [--port 11112] [--called DICOMRCV] [--calling DICOMRX]

Ends with 0 where all was acknowledged, 1 where some was refused, 69 where the receiver cannot be reached.
"""

import argparse
import sys
from pathlib import Path

from dicomrx.errors import UnavailableError
from dicomrx.network.sender import echo, send


def main() -> int:
    """Parse the command line, send, and return the exit code."""
    parser = argparse.ArgumentParser(description="Send every DICOM file under a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=11112)
    parser.add_argument("--called", default="DICOMRCV")
    parser.add_argument("--calling", default="DICOMRX")
    options = parser.parse_args()
    titles = {"called": options.called, "calling": options.calling}
    if not echo(options.host, options.port, **titles):
        print(f"{options.host} port {options.port} does not answer as {options.called}", file=sys.stderr)
        return 69
    sent = refused = 0
    try:
        for result in send((path for path in sorted(options.folder.rglob("*")) if path.is_file()), options.host, options.port, **titles):
            if result.status == 0:
                sent += 1
            else:
                refused += 1
                print(f"{result.path}: {result.reason or f'refused with {result.status:04X}'}", file=sys.stderr)
    except UnavailableError as error:
        print(error, file=sys.stderr)
        return 69
    finally:
        print(f"{sent} sent, {refused} not")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
