ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/dicomrx
WORKDIR /build
# What changes least comes first: the dependencies are a layer of their own.
COPY requirements.lock ./
RUN /opt/dicomrx/bin/pip install --require-hashes --requirement requirements.lock
COPY LICENSE README.md pyproject.toml ./
COPY src ./src
RUN /opt/dicomrx/bin/pip install --no-deps --no-build-isolation .

FROM ${PYTHON}
# A number, so that Kubernetes can check runAsNonRoot, and a fixed one, so that a host folder can be given to it.
RUN groupadd --gid 10001 dicomrx \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/dicomrx --shell /usr/sbin/nologin dicomrx \
    && install -d -o 10001 -g 10001 -m 0700 /var/lib/dicomrx/spool /var/lib/dicomrx/state
COPY --from=build /opt/dicomrx /opt/dicomrx
COPY docker/healthcheck.py /opt/dicomrx/healthcheck.py
# The zips lie in the spool's volume; identities and keys have a volume, rights and a backup of their own.
ENV PATH=/opt/dicomrx/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DICOM_RECEIVER_STORAGE_DIR=/var/lib/dicomrx/spool/storage \
    DICOM_RECEIVER_ZIP_DIR=/var/lib/dicomrx/spool/zips \
    DICOM_RECEIVER_STATE_DIR=/var/lib/dicomrx/state
VOLUME ["/var/lib/dicomrx/spool", "/var/lib/dicomrx/state"]
WORKDIR /var/lib/dicomrx
USER 10001:10001
EXPOSE 11112
STOPSIGNAL SIGTERM
# A whole C-ECHO: a bare TCP connect leaves a half-open association behind, every time.
HEALTHCHECK --interval=60s --timeout=10s --start-period=20s --retries=3 CMD ["python", "/opt/dicomrx/healthcheck.py"]
ENTRYPOINT ["dicomrx"]
CMD ["all"]
