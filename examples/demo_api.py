"""The small upload API that `dicomrx demo` uses, as a program: a place to send to while trying things out.

python examples/demo_api.py --port 8000 --dir received
DICOM_RECEIVER_API_URL=http://127.0.0.1:8000/api DICOM_RECEIVER_API_USERNAME=demo DICOM_RECEIVER_API_PASSWORD=demo dicomrx upload --once
"""

import argparse
import threading
from pathlib import Path

from dicomrx.demo.api_server import DemoApi


def main() -> None:
    """Run until interrupted, and say first on which URL."""
    parser = argparse.ArgumentParser(description="A small upload API on 127.0.0.1, for trying dicomrx out.")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--dir", type=Path, default=Path("received"), help="where uploads are kept")
    parser.add_argument("--username", default="demo")
    parser.add_argument("--password", default="demo")
    options = parser.parse_args()
    with DemoApi(options.dir, username=options.username, password=options.password, port=options.port) as api:
        print(f"API_URL is {api.url}", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print(f"{len(api.accepted)} uploads accepted")


if __name__ == "__main__":
    main()
