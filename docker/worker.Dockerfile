# A node: vLLM as its makers ship it, and fleetgate-worker beside it to check, download, launch and drain.
ARG VLLM_IMAGE=docker.io/vllm/vllm-openai:v0.32.0

FROM ${VLLM_IMAGE}
WORKDIR /opt/fleetgate/src
COPY pyproject.toml README.md LICENSE fleetgate.example.yaml ./
COPY gateway gateway
COPY workers workers
# Into a folder of its own, never into vLLM's environment: our versions must not replace the ones it was tested with.
# The command adds that folder to its own path only, so the vLLM that it starts does not see it.
# Versions are bounded in pyproject.toml:
# Without the fake node: nobody is to start one on a GPU machine, or to be answered by it.
# hadolint ignore=DL3013
RUN rm -rf workers/fake \
    && python3 -m pip install --no-cache-dir --target /opt/fleetgate/lib '.[worker-tools]' \
    && rm -rf /opt/fleetgate/src \
    && printf '%s\n' '#!/usr/bin/env python3' 'import sys' 'sys.path.insert(0, "/opt/fleetgate/lib")' \
        'from workers.cli import main' 'sys.exit(main())' > /usr/local/bin/fleetgate-worker \
    && chmod 755 /usr/local/bin/fleetgate-worker
# Profiles with parallel.backend: ray need Ray in vLLM's own environment, which may have none: --build-arg RAY=1. The
# bounds are those of vLLM's own requirements.
ARG RAY=
# hadolint ignore=DL3013
RUN if [ -n "${RAY}" ]; then python3 -m pip install --no-cache-dir 'ray[cgraph]>=2.48,<3' && ray --version; fi
# Not root: GPUs, shared memory and the port need none. A number, so that Kubernetes can see it; its home holds the caches
# of compilers. The models' folder has to be writable for it where it is downloaded to (chown 10001).
RUN groupadd --gid 10001 fleetgate \
    && useradd --uid 10001 --gid 10001 --home-dir /var/lib/fleetgate --create-home --shell /usr/sbin/nologin fleetgate
ENV HOME=/var/lib/fleetgate
USER 10001:10001
WORKDIR /var/lib/fleetgate
ENV FLEETGATE_WORKER_HOST=0.0.0.0 \
    FLEETGATE_WORKER_PORT=8000
EXPOSE 8000
STOPSIGNAL SIGTERM
# Loading takes up to half an hour: the launcher's own deadline counts, so a long start is not yet unhealthy.
HEALTHCHECK --interval=10s --timeout=5s --start-period=40m --retries=6 \
    CMD ["python3", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['FLEETGATE_WORKER_PORT'] + '/health', timeout=4)"]
ENTRYPOINT ["fleetgate-worker"]
CMD ["--help"]
