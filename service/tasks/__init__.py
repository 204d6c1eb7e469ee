"""The feature: routes, handlers, schemas, queries, and the OpenAPI document that describes them."""
