-- Sends the requests of a file in turn, each connection the next one.
-- The file: method and media type (empty: no body), a line each; then for each request its length and path, a line,
-- and its body.
local requests, turn = {}, 0

function init(arguments)
  local file = assert(io.open(arguments[1], "rb"))
  local method = file:read("*l")
  local media_type = file:read("*l")
  if media_type ~= "" then wrk.headers["content-type"] = media_type end
  for line in file:lines() do
    local length, path = line:match("^(%d+) (.*)$")
    local body = tonumber(length) > 0 and file:read(tonumber(length)) or nil
    requests[#requests + 1] = wrk.format(method, path, nil, body)
  end
  file:close()
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local faults = summary.errors
  local count = faults.connect + faults.read + faults.write + faults.status + faults.timeout
  print(string.format("figures %d %d %d %d %d", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), count))
end
