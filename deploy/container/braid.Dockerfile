# Gateway, stream worker and the jobs of features/ and training/, without Triton. Build from the repository's root:
#   docker build --file deploy/container/braid.Dockerfile --tag braid:local .
FROM python:3.11.13-slim-bookworm

WORKDIR /braid
COPY requirements.lock ./
# PyPI's torch for Linux is the CUDA build, gigabytes that nothing here has a use for.
RUN pip install --no-cache-dir --no-deps --index-url https://download.pytorch.org/whl/cpu \
        "$(grep '^torch==' requirements.lock | cut -d ';' -f 1 | tr -d ' ')" \
    && pip install --no-cache-dir --requirement requirements.lock

COPY proto proto
RUN python -m grpc_tools.protoc -Iproto --python_out=proto --pyi_out=proto --grpc_python_out=proto proto/braid/v1/*.proto
COPY features features
COPY training training
COPY server server
COPY deploy deploy
COPY model_repository/fusion/config.pbtxt model_repository/fusion/
COPY model_repository/item_tower/config.pbtxt model_repository/item_tower/

RUN useradd --create-home braid && mkdir -p /shop/model_repository && chown -R braid /shop
USER braid
ENV PYTHONPATH=/braid:/braid/proto PYTHONUNBUFFERED=1 BRAID_HOME=/shop
CMD ["python", "-m", "server"]
