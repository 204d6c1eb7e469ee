// Uses tasks.ts in a network whose faults are those of test_page.LIMITS, in their order. Fails by assertion.
import assert from "node:assert/strict";
import { allTasks, createTask, taskClient, TaskError, type Task } from "./tasks.js";

Object.defineProperty(Request.prototype, "body", { get: () => undefined }); // as in Firefox

const [baseUrl = "", token = "", user_id = ""] = process.argv.slice(2);
const client = taskClient(baseUrl, () => token);
const path = { user_id };
const tasks = await (async () => {
  const task = await createTask(client, user_id, { title: "First" }, "first");
  return { params: { path: { user_id, task_id: task.id } } };
})();
const post = () => client.POST("/api/{user_id}/tasks", { params: { path }, body: { title: "No key" } });
const get = () => client.GET("/api/{user_id}/tasks/{task_id}", tasks);

// a lost response is an error if a retry could be a second change
await assert.rejects(post);
await assert.rejects(client.PATCH("/api/{user_id}/tasks/{task_id}/complete", tasks));
assert.equal((await get()).data?.completed, true);
// and is none for a toggle that sets
const set = await client.PATCH("/api/{user_id}/tasks/{task_id}/complete", { ...tasks, body: { completed: true } });
assert.equal(set.data?.version, 2);
// a 429 was not started, a 503 may have been
assert.equal((await post()).response.status, 201);
assert.equal((await post()).response.status, 503);
// a wait that is too long
assert.equal((await get()).response.status, 503);
// a proxy's page, and nothing at all
for (const _ of ["page", "nothing"]) {
  await assert.rejects(createTask(client, user_id, { title: "Never" }, "never"), (error) => {
    assert(error instanceof TaskError);
    assert.deepEqual([error.status, error.message, error.field, error.requestId], [502, "Status 502", undefined, null]);
    return true;
  });
}
// given up, with the task created
const create = () => createTask(client, user_id, { title: "Second" }, "second");
await assert.rejects(create);
await create();
// aborted
await assert.rejects(client.GET("/api/{user_id}/tasks", { params: { path }, signal: AbortSignal.abort() }));

const left: Task[] = [];
for await (const task of allTasks(client, user_id)) left.push(task);
assert.deepEqual(left.map(({ title }) => title), ["Second", "No key", "No key", "First"]);
