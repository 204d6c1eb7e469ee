// What Hey API's and Orval's types say of absent and null. Checked, not run.
import * as heyApi from "./hey-api/index.js";
import * as orval from "./orval/client.js";

export const updates: (heyApi.TaskUpdate & orval.TaskUpdate)[] = [
  { title: "x" },
  { description: null },
  { completed: true },
  // @ts-expect-error: a title cannot be null
  { title: null },
  // @ts-expect-error: completed cannot be null
  { completed: null },
  // @ts-expect-error: no such field
  { titel: "x" },
];
export const creates: (heyApi.TaskCreate & orval.TaskCreate)[] = [
  { title: "x" },
  { title: "x", description: null, completed: false },
  // @ts-expect-error: a title is needed
  { description: "x" },
];
export const readDescription = (task: heyApi.Task & orval.Task): string | null => task.description;
export const readError = (error: heyApi.ApiError & orval.ApiError): [string, string | undefined] => [error.error, error.field];
export const operations = [
  [heyApi.listTasks, heyApi.createTask, heyApi.batchTasks, heyApi.getTask, heyApi.updateTask, heyApi.deleteTask, heyApi.toggleTask],
  [orval.listTasks, orval.createTask, orval.batchTasks, orval.getTask, orval.updateTask, orval.deleteTask, orval.toggleTask],
];
