# The image that Hugging Face Spaces builds: its user cannot change it, and needs the workspace and /tmp to write and no
# network. `make image` builds and tries it without Docker.
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 \
    LABELRANK_HOME=/home/user/workspace \
    HF_HOME=/home/user/workspace/huggingface \
    LABELRANK_SHARED=1 \
    LABELRANK_MAX_JOB_SECONDS=14400 \
    # 10 GiB each: a Space has a disk of 50 GB.
    LABELRANK_MAX_CACHE_BYTES=10737418240 \
    LABELRANK_MAX_HUB_BYTES=10737418240 \
    LABELRANK_MAX_UPLOADS_BYTES=10737418240 \
    # In the iframe of a Space the uploader gets no XSRF cookie and would answer 403.
    STREAMLIT_SERVER_ENABLE_XSRF_PROTECTION=false \
    STREAMLIT_SERVER_HEADLESS=true \
    STREAMLIT_SERVER_ADDRESS=0.0.0.0 \
    STREAMLIT_SERVER_PORT=8501
# The workspace is made here so that a volume that is mounted there belongs to the user.
RUN useradd --create-home --uid 1000 user && install --directory --owner=user --group=user /home/user/workspace
WORKDIR /home/user/app

# For NVIDIA GPUs it is built with --build-arg LOCK=requirements-gpu.lock, or a variable LOCK in the settings of a Space.
ARG LOCK=requirements-image.lock
COPY ${LOCK} .
# The headers of TensorFlow, 430 MB, are for those who compile against it.
RUN pip install --no-cache-dir --root-user-action=ignore --require-hashes -r ${LOCK} \
    && rm -r "$(python -c 'import tensorflow as tf; print(tf.sysconfig.get_include())')"

# Compiled here, as the user cannot: each job starts a process, which would compile anew.
COPY . .
RUN pip install --no-cache-dir --root-user-action=ignore --no-deps --no-build-isolation --editable . \
    && python -m compileall -q app.py labelrank pages

USER user
EXPOSE 8501
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD python -c "import os, urllib.request as u; \
    base = os.environ.get('STREAMLIT_SERVER_BASE_URL_PATH', '').strip('/'); \
    url = '/'.join(filter(None, ('http://127.0.0.1:8501', base, '_stcore/health'))); \
    assert u.urlopen(url, timeout=4).read() == b'ok'"
# It hands the signal to stop to the app, and takes what the ended processes of jobs leave.
ENTRYPOINT ["dumb-init", "--single-child", "--"]
CMD ["streamlit", "run", "app.py"]
