# One image for both servers: `model-registry serve` (gRPC) and
# `model-registry gateway` (Envoy, from its wheel).

ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python -m venv --without-pip /opt/model-registry
# It changes rarely, so this layer is cached.
COPY requirements.lock .
RUN pip --python /opt/model-registry/bin/python install --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
COPY generated generated
COPY client client
COPY registry_service registry_service
# The client's wheel has the stubs, which the server imports.
RUN pip wheel --no-deps --wheel-dir dist ./client . \
    && pip --python /opt/model-registry/bin/python install --no-deps --no-index dist/*.whl

FROM python:${PYTHON}-slim
LABEL org.opencontainers.image.title="Model Registry" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin registry
# The same path as in the build: the scripts of a venv contain the path of its interpreter.
COPY --from=build /opt/model-registry /opt/model-registry
ENV PATH=/opt/model-registry/bin:$PATH \
    PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 50051 32002
# SIGTERM, the default, drains the server.
ENTRYPOINT ["model-registry"]
# A supervised worker: the supervisor replaces a hanging server, which a restart policy does not.
CMD ["serve", "--workers=1"]
