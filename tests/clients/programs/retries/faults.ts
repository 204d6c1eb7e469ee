// Uses tasks.ts in a network where each first try meets a fault and its retry does not. Fails by assertion.
import assert from "node:assert/strict";
import { allTasks, createTask, poll, taskClient, TaskError, updateTask } from "./tasks.js";

const [baseUrl = "", token = "", user_id = ""] = process.argv.slice(2);
setInterval(() => globalThis.gc?.(), 100).unref(); // a timeout comes although its signal could be collected
let tokens = 0;
const client = taskClient(baseUrl, async () => {
  tokens++;
  return token;
});

const count = 8; // each fault once
for (let number = 0; number < count; number++) {
  await createTask(client, user_id, { title: `Task ${number}` }, crypto.randomUUID());
}
assert.equal(tokens, count);
const titles: string[] = [];
for await (const task of allTasks(client, user_id, 5)) titles.push(task.title);
assert.deepEqual(titles, Array.from({ length: count }, (_, number) => `Task ${count - 1 - number}`));

let task = await createTask(client, user_id, { title: "Milk" }, crypto.randomUUID());
const stale = task;
for (let number = 0; number < count; number++) {
  task = await updateTask(client, task, ({ title }) => ({ title: ` ${title}! ` }));
}
assert.equal(task.title, `Milk${"!".repeat(count)}`);
assert.equal(task.version, 1 + count);

const decided: string[] = [];
const changed = await updateTask(client, stale, ({ title }) => {
  decided.push(title);
  return { description: `was ${title}` };
});
assert.deepEqual(decided, ["Milk", task.title]);
assert.equal(changed.description, `was ${task.title}`);
assert.equal(changed.title, task.title);

const newest = poll(client, user_id, 5);
assert.deepEqual((await newest())?.map(({ title }) => title), [task.title, ...titles.slice(0, 4)]);
for (let number = 0; number < count; number++) assert.equal(await newest(), undefined);
await createTask(client, user_id, { title: "New" }, crypto.randomUUID());
assert.equal((await newest())?.[0]?.title, "New");

await assert.rejects(createTask(client, user_id, { title: " " }, "k"), (error) => {
  assert(error instanceof TaskError);
  assert.deepEqual([error.status, error.message, error.field], [400, "Title cannot be empty", "title"]);
  return error.requestId !== null;
});
