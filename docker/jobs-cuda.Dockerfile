# The jobs environment for NVIDIA GPUs: PyPI's torch brings the CUDA libraries; the host brings the driver and its container
# toolkit. docker build -f docker/jobs-cuda.Dockerfile -t nightshelf/jobs-cuda:local .
FROM python:3.11.14-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends default-jre-headless make procps \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --uid 10001 --create-home nightshelf \
    && mkdir -p /opt/nightshelf /data /mlflow \
    && chown nightshelf:nightshelf /opt/nightshelf /data /mlflow
WORKDIR /opt/nightshelf
USER nightshelf
COPY --chown=nightshelf:nightshelf . .

RUN make .venv/jobs/ready

ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PATH=/opt/nightshelf/.venv/jobs/bin:$PATH \
    NIGHTSHELF_COMMAND=/opt/nightshelf/.venv/jobs/bin/nightshelf \
    NIGHTSHELF_HOME=/data/demo \
    SPARK_HOME=/opt/nightshelf/.venv/jobs/lib/python3.11/site-packages/pyspark
CMD ["nightshelf", "--help"]
