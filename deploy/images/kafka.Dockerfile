# A single Kafka broker for trials: the jars that the tests run on (verified by their SHA-256), and a Java runtime.
# build.sh lays both into the build context. For production use your own Kafka, or Strimzi.
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE}
ARG VERSION=0.0.0
LABEL org.opencontainers.image.title="skyscraper-kafka" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY java /opt/java
COPY libs /opt/kafka/libs
COPY log4j2.xml /opt/kafka/log4j2.xml
WORKDIR /tmp
USER 65532:65532
ENTRYPOINT ["/opt/java/bin/java", "-Dlog4j2.configurationFile=/opt/kafka/log4j2.xml", "-cp", "/opt/kafka/libs/*", "kafka.Kafka"]
