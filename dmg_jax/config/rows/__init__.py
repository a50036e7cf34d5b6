"""Rows of tables and figures."""
