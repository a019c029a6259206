# The gateway. The same package carries the worker's commands, so this image also runs the fake node and the CPU node.
# Every base image comes from an argument: a mirror or a pinned digest needs no change here.
ARG PYTHON_IMAGE=docker.io/library/python:3.12-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
# The way of a request is compiled with mypyc (docs/deploy.md#compiled); COMPILE= leaves it Python.
ARG COMPILE=1
# hadolint ignore=DL3008
RUN if [ -n "${COMPILE}" ] && ! command -v gcc >/dev/null; then \
        apt-get update -qq && apt-get install -qq -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*; \
    fi
# Versions and hashes are those of the lock files (`make lock`). pip stays outside of the environment it fills.
# Extra packages, EXTRAS=[tokenizer], [otel] or [worker-tools] (for `launch` with Redis), have a lock file together.
ARG EXTRAS=
COPY docker/*.lock docker/
RUN python3 -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes -r docker/build.lock \
    && python3 -m venv --without-pip /opt/fleetgate \
    && /opt/build/bin/pip --python /opt/fleetgate/bin/python install --no-cache-dir --require-hashes \
        -r "docker/gateway${EXTRAS:+-extras}.lock"
COPY pyproject.toml README.md LICENSE fleetgate.example.yaml ./
COPY gateway gateway
COPY workers workers
# Without an index: a dependency that the lock files do not have fails the build.
RUN HATCH_BUILD_HOOK_ENABLE_MYPYC="${COMPILE}" /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation \
        --wheel-dir /opt/dist . \
    && /opt/build/bin/pip --python /opt/fleetgate/bin/python install --no-cache-dir --no-index --find-links /opt/dist \
        "fleetgate${EXTRAS}"

FROM ${PYTHON_IMAGE}
# A number and not a name, so that Kubernetes can see that it is not root. Its home is for `cpu-node`'s cache only.
RUN groupadd --gid 10001 fleetgate \
    && useradd --uid 10001 --gid 10001 --home-dir /var/lib/fleetgate --create-home --shell /usr/sbin/nologin fleetgate
COPY --from=build /opt/fleetgate /opt/fleetgate
ENV PATH=/opt/fleetgate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /var/lib/fleetgate
EXPOSE 8080 9091
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=15s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/health', timeout=2)"]
ENTRYPOINT ["fleetgate"]
CMD ["serve", "--config", "/etc/fleetgate/gateway.yaml"]
