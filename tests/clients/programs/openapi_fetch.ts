// Drives all seven operations through openapi-fetch: errors, pages, tags, keys. Fails by assertion.
import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

const [baseUrl = "", token = "", user_id = ""] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${token}` } });
const path = { user_id };

// create, with a key and without
const header = { "Idempotency-Key": crypto.randomUUID() };
const first = await client.POST("/api/{user_id}/tasks", { params: { path, header }, body: { title: " Buy milk " } });
assert.equal(first.response.status, 201);
assert(first.data);
const task: components["schemas"]["Task"] = first.data;
assert.equal(task.title, "Buy milk");
assert.equal(task.description, null);
assert.equal(task.completed, false);
assert.equal(first.response.headers.get("Location"), `/api/${user_id}/tasks/${task.id}`);
const again = await client.POST("/api/{user_id}/tasks", { params: { path, header }, body: { title: "Buy milk" } });
assert.equal(again.response.headers.get("Idempotency-Replayed"), "true");
assert.deepEqual(again.data, task);
const reused = await client.POST("/api/{user_id}/tasks", { params: { path, header }, body: { title: "Other" } });
assert.equal(reused.response.status, 422);
assert.equal(reused.error?.error, "Idempotency-Key was already used for another request");
const described = await client.POST("/api/{user_id}/tasks", {
  params: { path },
  body: { title: "Call Ada", description: "About the engine", completed: true },
});
assert.equal(described.data?.description, "About the engine");

// batch
const many = Array.from({ length: 5 }, (_, number) => ({ title: `Task ${number}` }));
const batch = await client.POST("/api/{user_id}/tasks/batch", { params: { path }, body: many });
assert.deepEqual(batch.data?.map((made) => made.title), many.map((asked) => asked.title));
const badItem = await client.POST("/api/{user_id}/tasks/batch", { params: { path }, body: [{ title: "x" }, { title: " " }] });
assert.deepEqual(badItem.error, { error: "Title cannot be empty", field: "1.title" });

// list, in pages
const ids: number[] = [];
for (let after: number | undefined; ; ) {
  const page = await client.GET("/api/{user_id}/tasks", { params: { path, query: { limit: 3, after } } });
  assert(page.data);
  ids.push(...page.data.map((found) => found.id));
  const link = page.response.headers.get("Link");
  if (link === null) break;
  after = Number(new URL(/<(.*)>; rel="next"/.exec(link)![1]!, baseUrl).searchParams.get("after"));
}
const all = await client.GET("/api/{user_id}/tasks", { params: { path } });
assert.deepEqual(ids, all.data?.map((found) => found.id));
assert.equal(ids.length, 7);
const open = await client.GET("/api/{user_id}/tasks", { params: { path, query: { completed: false } } });
assert.equal(open.data?.length, 6);
const badLimit = await client.GET("/api/{user_id}/tasks", { params: { path, query: { limit: 0 } } });
assert.equal(badLimit.error?.field, "limit");

// get, with a tag
const one = { user_id, task_id: task.id };
const got = await client.GET("/api/{user_id}/tasks/{task_id}", { params: { path: one } });
const tag = got.response.headers.get("ETag")!;
assert.equal(tag, `"${task.version}"`);
const known = await client.GET("/api/{user_id}/tasks/{task_id}", { params: { path: one, header: { "If-None-Match": tag } } });
assert.equal(known.response.status, 304);
const missing = await client.GET("/api/{user_id}/tasks/{task_id}", { params: { path: { user_id, task_id: 1e15 } } });
assert.deepEqual(missing.error, { error: "Task not found" });

// update, with a tag; absent and null are two things
const update = await client.PUT("/api/{user_id}/tasks/{task_id}", {
  params: { path: one, header: { "If-Match": tag } },
  body: { description: "two litres" },
});
assert.equal(update.data?.title, "Buy milk");
assert.equal(update.data?.description, "two litres");
const stale = await client.PUT("/api/{user_id}/tasks/{task_id}", {
  params: { path: one, header: { "If-Match": tag } },
  body: { title: "Lost" },
});
assert.equal(stale.response.status, 412);
assert.equal(stale.response.headers.get("ETag"), '"2"');
const kept = await client.PUT("/api/{user_id}/tasks/{task_id}", { params: { path: one }, body: { title: "Milk" } });
assert.equal(kept.data?.description, "two litres");
const cleared = await client.PUT("/api/{user_id}/tasks/{task_id}", { params: { path: one }, body: { description: null } });
assert.equal(cleared.data?.description, null);
// @ts-expect-error: a title cannot be null
const nullTitle = await client.PUT("/api/{user_id}/tasks/{task_id}", { params: { path: one }, body: { title: null } });
assert.deepEqual(nullTitle.error, { error: "Title must be a string", field: "title" });
const unknown = await client.PUT("/api/{user_id}/tasks/{task_id}", { params: { path: one }, body: { titel: "x" } });
assert.equal(unknown.error?.field, "titel");

// toggle: flips, or sets
const toggle = "/api/{user_id}/tasks/{task_id}/complete";
assert.equal((await client.PATCH(toggle, { params: { path: one } })).data?.completed, true);
assert.equal((await client.PATCH(toggle, { params: { path: one }, body: { completed: true } })).data?.completed, true);

// delete
const notDeleted = await client.DELETE("/api/{user_id}/tasks/{task_id}", { params: { path: one, header: { "If-Match": tag } } });
assert.equal(notDeleted.response.status, 412);
assert.equal((await client.DELETE("/api/{user_id}/tasks/{task_id}", { params: { path: one } })).response.status, 204);
assert.equal((await client.DELETE("/api/{user_id}/tasks/{task_id}", { params: { path: one } })).response.status, 404);

// the wrong user, and no user
const foreign = await client.GET("/api/{user_id}/tasks", { params: { path: { user_id: "somebody-else" } } });
assert.deepEqual([foreign.response.status, foreign.error], [403, { error: "Access denied" }]);
const nobody = await createClient<paths>({ baseUrl }).GET("/api/{user_id}/tasks", { params: { path } });
assert.deepEqual([nobody.response.status, nobody.error], [401, { error: "Authentication required" }]);
