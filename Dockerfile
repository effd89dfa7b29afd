# One image for everything: `loraworks api`, `loraworks worker`, `loraworks migrate`.
#
#   docker build -t loraworks .
#   docker build -t loraworks --build-arg TORCH_INDEX=… .
#
# PyPI's build of torch runs on CPUs and NVIDIA GPUs, and is large. For CPUs alone, give the index of
# the CPU wheels, as the installation page of PyTorch names it; the image is then much smaller.
#
# The digests fix the content of the images below, for every processor; the hashes of the packages
# are those of x86-64. After a change of a tag, and for updates of Debian, take the new digest from `docker buildx imagetools inspect python:TAG`.

# The native engine. This image has the compiler; the one below needs none.
FROM python:3.11.16-trixie@sha256:70e8e937c1da72df1688e883a2108b0feff03381187fa78eca6d9b10df411320 AS native

RUN --mount=type=bind,source=lora_core/fast/native,target=/src \
    mkdir /native && python /src/build.py /native


FROM python:3.11.16-slim-trixie@sha256:be1575ed968de893bd54f4c56315ff7c4736ce522c1bca08fd521731aafc0d76

# After a change of the version: `make lock`.
ARG TORCH_VERSION=2.13.0
ARG TORCH_INDEX=

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore

# Each wheel is compared with its hash (`make lock`). These layers hold no code of ours, so they are
# made anew only when the lock or torch changes.
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,source=requirements.lock,target=/src/requirements.lock \
    pip install --require-hashes --no-deps --only-binary :all: -r /src/requirements.lock

# By default torch is PyPI's, by its hash like what it needs for GPUs. A build of another index has no
# hash; what it needs is installed by now.
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,source=requirements-torch.lock,target=/src/requirements-torch.lock \
    if [ -n "${TORCH_INDEX}" ]; then \
        pip install --no-deps --index-url "${TORCH_INDEX}" "torch==${TORCH_VERSION}"; \
    else \
        pip install --require-hashes --only-binary :all: -r /src/requirements-torch.lock; \
    fi

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

# What builds the package is in the lock, so this downloads nothing.
RUN --mount=type=bind,target=/src \
    pip install --no-cache-dir --no-build-isolation --no-deps /src
COPY --from=native /native /usr/local/lib/python3.11/site-packages/lora_core/fast/native/build

LABEL org.opencontainers.image.title="loraworks" \
    org.opencontainers.image.description="Self-hosted LoRA fine-tuning and serving of text classifiers" \
    org.opencontainers.image.licenses="Apache-2.0"

USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
ENTRYPOINT ["loraworks"]
CMD ["api"]
