"""DICOM over the network: receiving (`serve`), sending (`send`, `echo`); the only package that imports pynetdicom.

`storing`, `admission`, `wire` and `filemeta` know no engine: another one than pynetdicom can be put in front of them.
Import the modules, not the package: `sender` starts without pynetdicom and pydicom.
"""
