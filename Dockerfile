# One image for each service: docker build --build-arg SERVICE=order --tag souk/order .
FROM python:3.14-slim-trixie AS base

# What the chassis and this service name.
FROM base AS wanted
ARG SERVICE
COPY pyproject.toml ./
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print(*project['dependencies'], *project['optional-dependencies']['${SERVICE:?name it: --build-arg SERVICE=order}'], sep='\n')" \
        > wanted.txt

# Each package at the version and hash of requirements.txt, in a virtual environment without pip: what runs the service
# cannot install anything. Nothing here depends on the build argument, so services that name the same share this layer.
FROM base AS dependencies
WORKDIR /build
RUN python -m venv --without-pip /opt/venv
COPY requirements.txt ./
COPY --from=wanted wanted.txt ./
RUN pip --python /opt/venv/bin/python install --no-cache-dir --only-binary=:all: --require-hashes \
        --constraint requirements.txt --requirement wanted.txt

FROM base AS code
ARG SERVICE
COPY chassis /app/chassis
COPY services/__init__.py /app/services/
COPY services/${SERVICE} /app/services/${SERVICE}
# Compiled here, because the image runs with a read-only root. The launcher is there because an exec-form ENTRYPOINT
# cannot name a build argument; it becomes the Python process, so signals reach the service.
RUN python -m compileall -q --invalidation-mode unchecked-hash /app \
    && printf '#!/bin/sh\nexec python -m services.%s "$@"\n' "${SERVICE}" > /app/service \
    && chmod 755 /app/service

FROM base
# A new volume mounted at /run/secrets takes over its owner, so that whoever makes the secrets need not be root.
RUN pip uninstall --yes --quiet pip && install -d -o 10001 -g 10001 /run/secrets
COPY --from=dependencies /opt/venv /opt/venv
ARG SERVICE
LABEL org.opencontainers.image.title="souk/${SERVICE}" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=code /app /app
WORKDIR /app
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 HOST=0.0.0.0 SECRETS_DIR=/run/secrets
USER 10001:10001
ENTRYPOINT ["/app/service"]
