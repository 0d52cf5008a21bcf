# The image that Hugging Face Spaces builds: CPU, one non-root user, no network needed after the build.
FROM python:3.11-slim

RUN useradd --create-home --uid 1000 user
USER user
ENV PATH=/home/user/.local/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    LABELRANK_HOME=/home/user/workspace \
    LABELRANK_SHARED=1 \
    LABELRANK_MAX_JOB_SECONDS=14400 \
    # In the iframe of a Space the uploader gets no XSRF cookie and would answer 403.
    STREAMLIT_SERVER_ENABLE_XSRF_PROTECTION=false \
    STREAMLIT_SERVER_HEADLESS=true \
    STREAMLIT_SERVER_ADDRESS=0.0.0.0 \
    STREAMLIT_SERVER_PORT=8501
WORKDIR /home/user/app

COPY --chown=user requirements.lock .
RUN pip install --user --no-cache-dir --require-hashes -r requirements.lock

COPY --chown=user . .
RUN pip install --user --no-cache-dir --no-deps --editable .

EXPOSE 8501
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD python -c "import urllib.request as u; assert u.urlopen('http://127.0.0.1:8501/_stcore/health', timeout=4).read() == b'ok'"
CMD ["streamlit", "run", "app.py"]
