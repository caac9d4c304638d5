# One image for each service: docker build --build-arg SERVICE=order --tag souk/order .
FROM python:3.14-slim-trixie AS base

FROM base AS build
ARG SERVICE
WORKDIR /build
# A virtual environment without pip: what runs the service cannot install anything.
RUN python -m venv --without-pip /opt/venv
COPY pyproject.toml requirements.txt ./
# What the chassis and this service name, each package at the version and hash of requirements.txt.
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print(*project['dependencies'], *project['optional-dependencies']['${SERVICE:?name it: --build-arg SERVICE=order}'], sep='\n')" \
        > wanted.txt \
    && pip --python /opt/venv/bin/python install --no-cache-dir --only-binary=:all: --require-hashes \
        --constraint requirements.txt --requirement wanted.txt
COPY chassis /app/chassis
COPY services/__init__.py /app/services/
COPY services/${SERVICE} /app/services/${SERVICE}
# Compiled here, because the image runs with a read-only root. The launcher is there because an exec-form ENTRYPOINT
# cannot name a build argument; it becomes the Python process, so signals reach the service.
RUN python -m compileall -q --invalidation-mode unchecked-hash /app \
    && printf '#!/bin/sh\nexec python -m services.%s "$@"\n' "${SERVICE}" > /opt/venv/bin/service \
    && chmod 755 /opt/venv/bin/service

FROM base
ARG SERVICE
LABEL org.opencontainers.image.title="souk/${SERVICE}" org.opencontainers.image.licenses="Apache-2.0"
# A new volume mounted at /run/secrets takes over its owner, so that whoever makes the secrets need not be root.
RUN pip uninstall --yes --quiet pip && install -d -o 10001 -g 10001 /run/secrets
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
WORKDIR /app
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 HOST=0.0.0.0 SECRETS_DIR=/run/secrets
USER 10001:10001
ENTRYPOINT ["service"]
