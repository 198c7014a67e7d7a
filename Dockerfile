# One image for the web process, the worker and the engine; CPU by default.
#   docker build -t ttrl .
#   docker build -t ttrl:gpu --build-arg LOCK=requirements-gpu.lock .
# It is built by `make setup`, the target that the tests run on.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE} AS build
ARG LOCK=requirements-cpu.lock
WORKDIR /app
RUN apt-get update \
 && apt-get install -y --no-install-recommends make=4.3-* \
 && rm -rf /var/lib/apt/lists/*
COPY Makefile pyproject.toml README.md requirements-cpu.lock requirements-gpu.lock ./
COPY client ./client
COPY server ./server
COPY adapters ./adapters
COPY migrations ./migrations
RUN make setup PY=python3 LOCK="${LOCK}"

# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE}
# libgomp: torch; gcc: triton and vLLM compile small kernels at start on a GPU.
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc=4:12.* libc6-dev=2.36-* libgomp1=12.* \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 10001 ttrl \
 && install -d -o ttrl -g ttrl /data
WORKDIR /app
COPY --from=build /app /app
COPY demo/model ./demo/model
# PYTHONPATH: the folders `server` and `adapters` here win over packages of the same name.
ENV PATH=/app/.venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 \
    TTRL_DATA_DIR=/data TTRL_HOST=0.0.0.0
USER 10001:10001
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=6 \
  CMD ["ttrl-server", "health"]
ENTRYPOINT ["ttrl-server"]
CMD ["serve"]
