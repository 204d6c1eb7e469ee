// A typed client that retries what is safe to retry. Needs openapi-fetch, and schema.ts made by openapi-typescript.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

export type Task = components["schemas"]["Task"];
export type TaskCreate = components["schemas"]["TaskCreate"];
export type TaskUpdate = components["schemas"]["TaskUpdate"];
export type TaskClient = ReturnType<typeof taskClient>;
type ApiError = components["schemas"]["ApiError"];

const RETRIED = [408, 429, 502, 503, 504];
const TRIES = 6;
const TIMEOUT_MS = 15_000; // of one try; above the service's REQUEST_DEADLINE_MS
const LONGEST_WAIT_MS = 30_000;

/** Where a second try could make a second change, it retries only a 429, and throws when a response is lost. */
async function fetchWithRetries(request: Request): Promise<Response> {
  const safe = isSafeToRetry(request);
  for (let attempt = 1; ; attempt++) {
    let wait = 0;
    try {
      const response = await fetchOnce(request);
      wait = retryAfterMs(response);
      const again = RETRIED.includes(response.status) && (safe || response.status === 429);
      if (!again || attempt === TRIES || wait > LONGEST_WAIT_MS) return response;
    } catch (error) {
      if (request.signal.aborted || !safe || attempt === TRIES) throw error; // the connection was lost, or too slow
    }
    await new Promise((resolve) => setTimeout(resolve, wait + Math.random() * 50 * 2 ** attempt));
  }
}

/** One try. A timer, since Node collects AbortSignal.any's signals as garbage: https://github.com/nodejs/node/pull/57867 */
async function fetchOnce(request: Request): Promise<Response> {
  request.signal.throwIfAborted();
  const controller = new AbortController();
  const abort = () => controller.abort();
  const timer = setTimeout(abort, TIMEOUT_MS);
  request.signal.addEventListener("abort", abort);
  try {
    const response = await fetch(request.clone(), { signal: controller.signal });
    const body = await response.arrayBuffer(); // here, since a connection can also be lost within the body
    return new Response(body.byteLength ? body : null, response);
  } finally {
    clearTimeout(timer);
    request.signal.removeEventListener("abort", abort);
  }
}

function isSafeToRetry({ method, headers }: Request): boolean {
  if (method === "POST") return headers.has("Idempotency-Key");
  if (method === "PATCH") return headers.has("Content-Type"); // without a body it flips; Firefox has no Request.body
  return true;
}

function retryAfterMs(response: Response): number {
  const value = response.headers.get("Retry-After") ?? ""; // seconds, or a proxy's date
  return Math.max(0, Number(value) * 1000 || Date.parse(value) - Date.now() || 0);
}

/** Calls `token` for each request, because tokens expire. */
export function taskClient(baseUrl: string, token?: () => string | Promise<string>) {
  const client = createClient<paths>({ baseUrl, fetch: fetchWithRetries });
  if (token) {
    client.use({
      async onRequest({ request }) {
        request.headers.set("Authorization", `Bearer ${await token()}`);
        return request;
      },
    });
  }
  return client;
}

/** A response that is neither a success nor a 304. */
export class TaskError extends Error {
  readonly status: number;
  readonly field: string | undefined;
  readonly requestId: string | null; // for the operators: it is in the service's log

  constructor(response: Response, error: Partial<ApiError> | undefined) {
    super(error?.error ?? `Status ${response.status}`); // a proxy's error is HTML, or empty
    this.status = response.status;
    this.field = error?.field;
    this.requestId = response.headers.get("X-Request-ID");
  }
}

/** Creates one task for each key. If this throws, the task may exist: call it again with the same key. */
export async function createTask(client: TaskClient, user_id: string, task: TaskCreate, key: string): Promise<Task> {
  const { data, error, response } = await client.POST("/api/{user_id}/tasks", {
    params: { path: { user_id }, header: { "Idempotency-Key": key } },
    body: task,
  });
  if (!data) throw new TaskError(response, error);
  return data;
}

/**
 * Updates a task, and overwrites nothing: if others changed it, `change` decides again from what it is now. That can be after
 * this update was applied, if its response was lost and another change followed: let `change` set values, not count up.
 */
export async function updateTask(client: TaskClient, task: Task, change: (task: Task) => TaskUpdate): Promise<Task> {
  const path = { user_id: task.user_id, task_id: task.id };
  for (;;) {
    const body = { ...change(task) };
    if (body.title !== undefined) body.title = body.title.trim(); // as the service does
    const { data, error, response } = await client.PUT("/api/{user_id}/tasks/{task_id}", {
      params: { path, header: { "If-Match": `"${task.version}"` } },
      body,
    });
    if (data) return data;
    if (response.status !== 412) throw new TaskError(response, error);
    const now = await client.GET("/api/{user_id}/tasks/{task_id}", { params: { path } });
    if (!now.data) throw new TaskError(now.response, now.error);
    const next = task.version + 1;
    task = now.data;
    // This update may have been applied and its response lost: then its retry is the one that got 412.
    const applied = Object.entries(body).every(([name, value]) => task[name as keyof Task] === value);
    if (task.version === next && applied) return task;
  }
}

/** A function that gets the newest tasks, or undefined if nothing has changed since its last call. */
export function poll(client: TaskClient, user_id: string, limit = 50): () => Promise<Task[] | undefined> {
  let etag: string | null = null;
  return async () => {
    const { data, error, response } = await client.GET("/api/{user_id}/tasks", {
      params: { path: { user_id }, query: { limit }, header: etag ? { "If-None-Match": etag } : {} },
    });
    if (response.status === 304) return undefined; // openapi-fetch gives it neither data nor an error
    if (!data) throw new TaskError(response, error);
    etag = response.headers.get("ETag");
    return data;
  };
}

/** All tasks, newest first, page by page. */
export async function* allTasks(client: TaskClient, user_id: string, limit = 500): AsyncGenerator<Task> {
  for (let query: { limit: number; after?: number } = { limit }; ; ) {
    const { data, error, response } = await client.GET("/api/{user_id}/tasks", { params: { path: { user_id }, query } });
    if (!data) throw new TaskError(response, error);
    yield* data;
    if (!response.headers.has("Link")) return; // the last page
    query = { limit, after: data[data.length - 1]!.id };
  }
}
