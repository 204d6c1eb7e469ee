// Node's own HTTP client with a pool of one connection: creates a task, reads it 20 times, sends a body that is too large.
// Prints the statuses and how many connections it needed.
import http from "node:http";

const base = new URL(process.argv[2]);
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
const sockets = new Set();

function send(method, path, body) {
  return new Promise((resolve, reject) => {
    const headers = body ? { "content-type": "application/json", "content-length": body.length } : {};
    const request = http.request({ host: base.hostname, port: base.port, agent, method, path, headers }, (response) => {
      sockets.add(response.socket.localPort);
      const chunks = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("end", () => resolve([response.statusCode, Buffer.concat(chunks)]));
    });
    let answered = false;
    request.on("response", () => (answered = true));
    request.on("error", (error) => answered || reject(error)); // the rest of a body that was rejected
    request.end(body);
  });
}

const statuses = [];
const [created, task] = await send("POST", "/api/u/tasks", Buffer.from('{"title": "x"}'));
statuses.push(created);
const path = `/api/u/tasks/${JSON.parse(task).id}`;
for (let n = 0; n < 20; n++) statuses.push((await send("GET", path))[0]);
const connections = sockets.size;
const [large] = await send("POST", "/api/u/tasks", Buffer.alloc(20_000_000, "x"));
console.log(JSON.stringify({ statuses, connections, large }));
process.exit(0);
