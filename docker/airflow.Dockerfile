# Airflow, on top of a jobs image: an Airflow task runs the jobs environment's command line in its own container, so that one
# image holds both and the operator never meets another version of the stages. The price is its size; the two environments
# stay apart inside it, as on any machine. For a GPU: --build-arg JOBS_IMAGE=nightshelf/jobs-cuda:local.
# docker build -f docker/airflow.Dockerfile -t nightshelf/airflow:local .
ARG JOBS_IMAGE=nightshelf/jobs-cpu:local
FROM ${JOBS_IMAGE}

RUN make .venv/airflow/ready && mkdir -p var/airflow/logs

ENV PATH=/opt/nightshelf/.venv/airflow/bin:$PATH \
    AIRFLOW_HOME=/opt/nightshelf/var/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/nightshelf/dags \
    AIRFLOW__CORE__LOAD_EXAMPLES=False
CMD ["airflow", "version"]
