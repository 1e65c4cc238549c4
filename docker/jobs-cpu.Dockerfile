# The jobs environment on CPU: every stage, the simulated shop, MLflow's server, Spark's master and workers.
# docker build -f docker/jobs-cpu.Dockerfile -t nightshelf/jobs-cpu:local .
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

# The address of PyTorch's CPU index makes this image 5 GB smaller; without it the lock's torch is PyPI's, with CUDA's
# libraries, which runs on a CPU too.
ARG PIP_EXTRA_INDEX_URL=
RUN make .venv/jobs/ready

ENV PATH=/opt/nightshelf/.venv/jobs/bin:$PATH \
    NIGHTSHELF_COMMAND=/opt/nightshelf/.venv/jobs/bin/nightshelf \
    NIGHTSHELF_HOME=/data/demo \
    SPARK_HOME=/opt/nightshelf/.venv/jobs/lib/python3.11/site-packages/pyspark
CMD ["nightshelf", "--help"]
