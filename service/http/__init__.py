"""Bytes and ASGI: the HTTP/1.1 protocol class, bodies and headers, responses, errors, load shedding, CORS."""
