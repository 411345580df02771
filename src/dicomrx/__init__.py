"""A DICOM gateway: receives, de-identifies, completes, zips and uploads studies, and gives the originals back."""
