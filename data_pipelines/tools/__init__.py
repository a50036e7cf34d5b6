"""Commands that write manifests; each is ``python -m data_pipelines.tools.X``.

What they write is read by ``data_pipelines/manifest.py``.
"""
