"""The OpenAPI 3.1 document: `document` puts it together from the operations, their errors and the components.

A handler takes a TaskRequest and returns a Response, so its signature does not say what it accepts: that is written
here. tests/api/test_openapi.py holds it to the routes and to real responses; tests/clients to client generators.
"""

from service.tasks.openapi.document import document

__all__ = ["document"]
