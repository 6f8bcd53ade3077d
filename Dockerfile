# The package with its endpoint and its Hugging Face import; every dependency by its hash, no root at run time.
#   docker build -t maquette .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD/outputs:/work/outputs" maquette train size=300k
FROM python:3.12-slim

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 HOME=/work

COPY requirements.lock /package/
RUN pip install --require-hashes --no-deps --requirement /package/requirements.lock

COPY pyproject.toml README.md LICENSE /package/
COPY src /package/src
COPY conf /package/conf
RUN pip install --no-deps /package

# /work is open to any user, so that --user with one's own id can write outputs there.
RUN useradd --uid 1000 --no-create-home maquette && install --directory --mode 1777 /work /work/outputs
USER 1000
WORKDIR /work
ENTRYPOINT ["maquette"]
CMD ["--help"]
