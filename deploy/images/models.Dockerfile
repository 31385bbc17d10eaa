# The detection models as `make models` makes them, in Triton's layout, in /models. An inference pod copies them from
# here when it starts. Models have licences of their own: docs/licences.md.
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE}
ARG VERSION=0.0.0
LABEL org.opencontainers.image.title="skyscraper-models" \
      org.opencontainers.image.version="${VERSION}"
COPY models /models
USER 65532:65532
ENTRYPOINT ["cp", "-r", "/models/.", "/repository/"]
