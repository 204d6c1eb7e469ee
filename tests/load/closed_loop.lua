-- wrk's script: one operation on random users and tasks. Arguments: operation, users, tasks, seed.
-- Task i belongs to user (i - 1) % users + 1 (tests/load/database.py). Requests are made by hand: wrk.format costs several
-- times as much.

local random = math.random
local operations = {}
local head, users, tasks

local function pick()
   local i = random(tasks)
   return "user-" .. ((i - 1) % users + 1), i
end

local function request_line(method, path)
   return method .. " /api/" .. path .. " HTTP/1.1\r\n" .. head
end

local function owner()
   return "user-" .. random(users)
end

function operations.get()
   local user, id = pick()
   return request_line("GET", user .. "/tasks/" .. id) .. "\r\n"
end

function operations.list()
   return request_line("GET", owner() .. "/tasks?limit=50") .. "\r\n"
end

function operations.create()
   local body = '{"title":"Made under load ' .. random(1000000) .. '","description":"Before noon, please"}'
   return request_line("POST", owner() .. "/tasks")
      .. "Content-Type: application/json\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body
end

local tasks_of_a_batch = {}
for number = 1, 1000 do
   tasks_of_a_batch[number] = '{"title":"Made under load ' .. number .. '","description":"Before noon, please"}'
end
local batch = "[" .. table.concat(tasks_of_a_batch, ",") .. "]"

function operations.batch()
   return request_line("POST", owner() .. "/tasks/batch")
      .. "Content-Type: application/json\r\nContent-Length: " .. #batch .. "\r\n\r\n" .. batch
end

function operations.toggle()
   local user, id = pick()
   return request_line("PATCH", user .. "/tasks/" .. id .. "/complete") .. "Content-Length: 0\r\n\r\n"
end

function operations.mixed()
   local draw = random(100)
   if draw <= 70 then return operations.get() end
   if draw <= 90 then return operations.list() end
   if draw <= 95 then return operations.create() end
   return operations.toggle()
end

local threads = 0
function setup(thread)
   thread:set("number", threads)
   threads = threads + 1
end

function init(arguments)
   users, tasks = tonumber(arguments[2]), tonumber(arguments[3])
   math.randomseed(tonumber(arguments[4]) * 1000 + number)
   head = "Host: " .. wrk.host .. "\r\n"
   request = operations[arguments[1]]
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '\n{"requests": %d, "seconds": %f, "p50": %f, "p90": %f, "p99": %f, "p999": %f, "errors": '
         .. '{"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}\n',
      summary.requests, summary.duration / 1e6,
      latency:percentile(50) / 1e3, latency:percentile(90) / 1e3, latency:percentile(99) / 1e3,
      latency:percentile(99.9) / 1e3,
      errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
