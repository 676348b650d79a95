# The engine for NVIDIA GPUs. No stage holds torch: export and build the engines of vsc22 elsewhere.
#   docker build --tag vsc-engine .
#   docker run --gpus all --user "$(id -u)" --volume "$PWD:/data" vsc-engine extract videos/ --role reference --output out/
# The CUDA version is that of the wheels in constraints.txt.
ARG CUDA=13.0.2
ARG UBUNTU=24.04

FROM nvidia/cuda:${CUDA}-devel-ubuntu${UBUNTU} AS build
# Ubuntu's archive drops old versions, so a pinned one would not build for long.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
RUN python3 -m venv /opt/vsc-engine
ENV PATH=/opt/vsc-engine/bin:/usr/local/cuda/bin:$PATH
# PyCUDA comes as source only. It links against the driver's library, of which the toolkit has a stub.
ENV LIBRARY_PATH=/usr/local/cuda/lib64/stubs
COPY constraints.txt pyproject.toml setup.cfg README.md LICENSE build_engines.py ./
COPY engine engine
RUN pip install --no-cache-dir --constraint constraints.txt '.[gpu]'

FROM nvidia/cuda:${CUDA}-runtime-ubuntu${UBUNTU}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --no-create-home --uid 10001 vsc \
    && install --directory --mode 1777 /cache
COPY --from=build /opt/vsc-engine /opt/vsc-engine
# `video` brings NVDEC into the container; the images ask for compute and utility only.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility,video \
    PATH=/opt/vsc-engine/bin:$PATH \
    XDG_CACHE_HOME=/cache
USER 10001
WORKDIR /data
ENTRYPOINT ["vsc-engine"]
CMD ["info"]
