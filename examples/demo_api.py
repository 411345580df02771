"""The small upload API that `dicomrx demo` uses, as a program: a place to send to while trying things out.

python examples/demo_api.py --port 8000 --dir received
DICOM_RECEIVER_API_URL=http://127.0.0.1:8000/api DICOM_RECEIVER_API_USERNAME=demo DICOM_RECEIVER_API_PASSWORD=demo dicomrx upload --once
"""

from dicomrx.demo.api_server import main

if __name__ == "__main__":
    main()
