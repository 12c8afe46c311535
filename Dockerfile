# The image of every process but Postgres: Airflow and the pipelines, as the lock says.
FROM python:3.12-slim-bookworm AS build
COPY requirements-installer.txt requirements.txt /tmp/
RUN pip install --no-cache-dir --require-hashes -r /tmp/requirements-installer.txt \
    && python -m venv --without-pip /opt/venv \
    && uv pip install --python /opt/venv/bin/python --no-cache --compile-bytecode \
        --require-hashes -r /tmp/requirements.txt

FROM python:3.12-slim-bookworm
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/opt/settlements \
    PYTHONUNBUFFERED=1 \
    AIRFLOW_HOME=/var/lib/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/settlements/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/settlements/plugins
# The volume of the logs takes over the owner that its folder has here.
RUN useradd --uid 50000 --home-dir /var/lib/airflow --create-home airflow \
    && install --directory --owner=airflow --group=airflow /var/lib/airflow/logs
COPY --from=build /opt/venv /opt/venv
COPY include /opt/settlements/include
COPY dags /opt/settlements/dags
COPY plugins /opt/settlements/plugins
RUN python -m compileall -q /opt/settlements
WORKDIR /opt/settlements
USER airflow
