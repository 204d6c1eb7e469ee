// Uses the client of the page through a network that loses requests and responses.
import assert from "node:assert/strict";
import { allTasks, createTask, taskClient } from "./tasks.js";

const [baseUrl = "", token = "", user_id = ""] = process.argv.slice(2);
const client = taskClient(baseUrl, token);
for (let number = 0; number < 12; number++) await createTask(client, user_id, `Task ${number}`);
const titles: string[] = [];
for await (const task of allTasks(client, user_id, 5)) titles.push(task.title);
assert.deepEqual(titles, Array.from({ length: 12 }, (_, number) => `Task ${11 - number}`));
const first = await allTasks(client, user_id, 5).next();
assert(first.value);
const path = { user_id, task_id: first.value.id };
const done = await client.PATCH("/api/{user_id}/tasks/{task_id}/complete", { params: { path }, body: { completed: true } });
assert.equal(done.data?.version, 2);
await assert.rejects(createTask(client, user_id, " "), /Title cannot be empty/);
