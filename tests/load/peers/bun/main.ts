// The peer on Bun: its own HTTP server and its own SQL client, WORKERS processes on one port.
// Settings: DATABASE_URL, DB_CONNECTIONS (of each process), WORKERS, PORT.
import { SQL } from "bun";

const { DATABASE_URL, DB_CONNECTIONS, PORT, WORKERS } = process.env;
const sql = new SQL({ url: DATABASE_URL!, max: Number(DB_CONNECTIONS) });

// A Date of JavaScript holds milliseconds, so times are read as microseconds since 1970, as text.
const micros = (column: string) => `(extract(epoch FROM ${column}) * 1000000)::bigint::text`;
const columns = sql.unsafe(
  `id, user_id, title, description, completed, version, ${micros("created_at")} AS created, ` +
    `${micros("updated_at")} AS updated`,
);

type Row = {
  id: string | number;
  user_id: string;
  title: string;
  description: string | null;
  completed: boolean;
  version: number;
  created: string;
  updated: string;
};

// RFC 3339 in UTC, with six decimals, or with none on the full second.
function time(text: string): string {
  const seconds = new Date(Number(text.slice(0, -6)) * 1000).toISOString().slice(0, 19);
  const fraction = text.slice(-6);
  return fraction === "000000" ? `${seconds}Z` : `${seconds}.${fraction}Z`;
}

const task = (row: Row) => ({
  id: Number(row.id),
  user_id: row.user_id,
  title: row.title,
  description: row.description,
  completed: row.completed,
  version: row.version,
  created_at: time(row.created),
  updated_at: time(row.updated),
});

const fail = (status: number, error: string) => Response.json({ error }, { status });
const one = (rows: Row[], status = 200) =>
  rows.length ? Response.json(task(rows[0]), { status }) : fail(404, "Task not found");

async function create(user: string, request: Request): Promise<Response> {
  let body: { title?: unknown; description?: unknown; completed?: unknown };
  try {
    body = await request.json();
  } catch {
    return fail(400, "Request body must be valid JSON");
  }
  const { title, description = null, completed = false } = body;
  if (typeof title !== "string" || !title.trim() || [...title.trim()].length > 255)
    return fail(400, "Title must be 1 to 255 characters");
  const rows = await sql`WITH owner AS (INSERT INTO users (id) VALUES (${user}) ON CONFLICT (id) DO NOTHING)
    INSERT INTO tasks (user_id, title, description, completed)
    VALUES (${user}, ${title.trim()}, ${description}, ${completed}) RETURNING ${columns}`;
  return one(rows, 201);
}

function id(text: string): number | null {
  return /^[1-9][0-9]{0,15}$/.test(text) ? Number(text) : null;
}

Bun.serve({
  hostname: "127.0.0.1",
  port: Number(PORT),
  reusePort: true,
  routes: {
    "/api/:user/tasks": {
      async GET(request) {
        const { user } = request.params;
        const limit = Number(new URL(request.url).searchParams.get("limit"));
        if (!Number.isInteger(limit) || limit < 1 || limit > 1000) return fail(400, "limit must be between 1 and 1000");
        const rows = await sql`SELECT ${columns} FROM tasks WHERE user_id = ${user} ORDER BY id DESC LIMIT ${limit}`;
        return Response.json(rows.map(task));
      },
      POST: (request) => create(request.params.user, request),
    },
    "/api/:user/tasks/:id": {
      async GET(request) {
        const number = id(request.params.id);
        if (number === null) return fail(400, "Invalid task ID");
        return one(await sql`SELECT ${columns} FROM tasks WHERE user_id = ${request.params.user} AND id = ${number}`);
      },
    },
    "/api/:user/tasks/:id/complete": {
      async PATCH(request) {
        const number = id(request.params.id);
        if (number === null) return fail(400, "Invalid task ID");
        return one(await sql`UPDATE tasks SET completed = NOT completed, version = version + 1,
          updated_at = clock_timestamp() WHERE user_id = ${request.params.user} AND id = ${number} RETURNING ${columns}`);
      },
    },
  },
  fetch: () => fail(404, "Not found"),
  error(error) {
    console.error(error);
    return fail(500, "Internal server error");
  },
});

// The other workers: the kernel spreads connections over the processes that listen on the port.
const others = Array.from({ length: process.env.PEER_WORKER ? 0 : Number(WORKERS ?? 1) - 1 }, () =>
  Bun.spawn([process.execPath, import.meta.path], { env: { ...process.env, PEER_WORKER: "1" }, stdio: ["ignore", "inherit", "inherit"] }),
);
process.on("SIGTERM", () => {
  for (const other of others) other.kill();
  process.exit(0);
});
