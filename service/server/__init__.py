"""Runs the application on uvicorn: one process, or several on one port."""
