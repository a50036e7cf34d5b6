"""Commands that write manifests; each is ``python -m data_pipelines.tools.X``.

``data_pipelines/manifest`` reads what they write.
"""
