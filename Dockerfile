# One image for everything: `loraworks api`, `loraworks worker`, `loraworks migrate`.
#
#   docker build -t loraworks .
#   docker build -t loraworks --build-arg TORCH_INDEX=… .
#
# PyPI's build of torch runs on CPUs and NVIDIA GPUs, and is large. For CPUs alone, give the index of
# the CPU wheels, as the installation page of PyTorch names it; the image is then much smaller.

# The native engine. This image has the compiler; the one below needs none.
FROM python:3.11.16-trixie AS native

RUN --mount=type=bind,source=lora_core/fast/native,target=/src \
    mkdir /native && python /src/build.py /native


FROM python:3.11.16-slim-trixie

ARG TORCH_VERSION=2.13.0
ARG TORCH_INDEX=

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore

# torch alone may come from an index of its own; what it needs comes with the lock below. These layers hold
# no code of ours, so they are made anew only when torch or the lock changes.
RUN --mount=type=cache,target=/root/.cache/pip \
    if [ -n "${TORCH_INDEX}" ]; then \
        pip install --no-deps --index-url "${TORCH_INDEX}" "torch==${TORCH_VERSION}"; \
    else \
        pip install "torch==${TORCH_VERSION}"; \
    fi

# Each wheel is held to its hash (`make lock`). torch is not: which build comes is the builder's choice.
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,source=requirements.lock,target=/src/requirements.lock \
    pip install --require-hashes --no-deps --only-binary :all: -r /src/requirements.lock

RUN useradd --uid 10001 --user-group --home-dir /tmp --no-create-home --shell /usr/sbin/nologin loraworks \
    && install --directory --owner loraworks --group loraworks --mode 0700 /data

# From here on nothing writes outside /data and /tmp, so the root file system may be read-only.
ENV HOME=/tmp \
    HF_HOME=/data/huggingface \
    LORAWORKS_AUTH=on \
    LORAWORKS_CACHE=/data/cache \
    LORAWORKS_DATA_DIR=/data \
    LORAWORKS_HOST=0.0.0.0 \
    LORAWORKS_PORT=8000 \
    PYTHONUNBUFFERED=1

RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,target=/src \
    pip install --no-deps /src
COPY --from=native /native /usr/local/lib/python3.11/site-packages/lora_core/fast/native/build

LABEL org.opencontainers.image.title="loraworks" \
    org.opencontainers.image.description="Self-hosted LoRA fine-tuning and serving of text classifiers" \
    org.opencontainers.image.licenses="Apache-2.0"

USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --start-interval=2s \
    CMD ["loraworks", "api", "--check"]
ENTRYPOINT ["loraworks"]
CMD ["api"]
