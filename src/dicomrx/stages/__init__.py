"""The stages, in the order in which an instance meets them. A stage of your own is a file here and a line in `registry.py`."""
